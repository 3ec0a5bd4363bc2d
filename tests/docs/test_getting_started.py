# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/getting_started.md``: its commands, run as they stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

pytestmark = pytest.mark.integration


def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands) -> None:
    """From an empty directory to an answer and back: every command works and prints what the page says."""
    here = run_commands(read_blocks("getting_started.md", "sh"))
    assert not (here / "key_file.json").exists()
