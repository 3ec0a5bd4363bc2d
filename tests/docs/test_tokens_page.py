# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``docs/tokens.md``: its commands, run as they stand there, against servers which they start.

What the test adds is in ``conftest.py``: free ports in the place of 8080 to 8082, and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.conftest import greet_model
from twisted_serve.auth.keyring import Reason
from twisted_serve.metrics.registry import ServerMetrics

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

PAGE = "tokens.md"


@pytest.mark.integration
def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands) -> None:
    """In the directory of "Getting started", every command works and prints what the page says."""
    here = run_commands([*greet_model(), *read_blocks(PAGE, "sh")])
    assert not (here / "key_file.json").exists()


def test_excused_commands(read_blocks: ReadBlocks) -> None:
    """No command of the page goes untested, but for one that needs a program which may not be here."""
    excused = [block for block in read_blocks(PAGE) if block.excuse is not None]
    assert all("jq" in block.text for block in excused)


def test_reasons_and_metrics() -> None:
    """The page tells all reasons of refusals and all metrics about tokens."""
    text = (Path(__file__).resolve().parents[2] / "docs" / PAGE).read_text(encoding="utf-8")
    cells = set(re.findall(r"^\| `([a-z_]+)(?:\{.*\})?` \|", text, re.M))
    assert {reason.value for reason in Reason} <= cells
    metrics = ServerMetrics("h")
    metrics.token_refused("inference", "missing")
    metrics.token_rotated("inference")
    metrics.watch_tokens({"inference": lambda: 1.0})
    samples = re.findall(rb"^(ts_token_[a-z_]+)\{", metrics.render(), re.M)
    names = {name.decode() for name in samples if not name.endswith(b"_created")}
    assert len(names) == 3
    assert names <= cells
