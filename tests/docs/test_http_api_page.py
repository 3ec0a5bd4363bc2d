# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``docs/http_api.md``: its commands, run as they stand there, and its tables against the routes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from twisted_serve.listening.roles import Role
from twisted_serve.web.api.route import Surface
from twisted_serve.web.api.surface import described_routes

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

PAGE = "http_api.md"


@pytest.mark.integration
def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands) -> None:
    """Every command works and prints what the page says."""
    run_commands(read_blocks(PAGE, "sh"))


def test_every_route() -> None:
    """The page names every path that there is, and no other."""
    text = (Path(__file__).resolve().parents[2] / "docs" / PAGE).read_text(encoding="utf-8")
    named = {path.rpartition(" ")[2] for path in re.findall(r"`((?:[A-Z]+ )?/[^`\s?]*)(?:\?[^`]*)?`", text)}
    surface = Surface(Role.INFERENCE | Role.MANAGEMENT | Role.METRICS, tokens=True, open_inference=True)
    paths = {operation.path for operation in described_routes(surface)}
    assert paths - {"/api-description"} <= named
    assert {path for path in named if "…" not in path} <= paths
