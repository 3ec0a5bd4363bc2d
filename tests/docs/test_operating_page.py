# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/operating.md``: its commands, run as they stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.conftest import greet_model

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

PAGE = "operating.md"


@pytest.mark.integration
def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands) -> None:
    """Every command works and prints what the page says; a version is rolled without a lost request."""
    run_commands([*greet_model(), *read_blocks(PAGE, "sh")])


def test_excused_commands(read_blocks: ReadBlocks) -> None:
    """No command goes untested, but the one that installs packages."""
    assert [block.text.split()[0] for block in read_blocks(PAGE) if block.excuse is not None] == ["pip"]
