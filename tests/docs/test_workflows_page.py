# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/workflows.md``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import fields

from twisted_serve.workflows.spec import NodeSettings

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

PAGE = "workflows.md"


def test_settings() -> None:
    """The page lists every setting of a node, with its default."""
    text = (Path(__file__).resolve().parents[2] / "docs" / PAGE).read_text(encoding="utf-8")
    table = text.partition("| in `models`, and in each model | if not said | |\n| --- | --- | --- |\n")[2]
    shown = dict(re.findall(r"^\| `([\w-]+)` \| (\d+) \|", table.partition("\n\n")[0], re.M))
    assert shown == {a.metadata["key"]: str(a.default) for a in fields(NodeSettings)}


@pytest.mark.integration
def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands) -> None:
    """The example works, and prints what the page says."""
    run_commands(read_blocks(PAGE, "sh"))
