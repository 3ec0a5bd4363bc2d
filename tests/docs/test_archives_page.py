# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/archives.md``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from twisted_serve.archiver.command import parser
from twisted_serve.archives.fields import attributes_of
from twisted_serve.archives.model_config import CONFIG_KEYS
from twisted_serve.archives.sections import Torchrun

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

PAGE = Path(__file__).resolve().parents[2] / "docs" / "archives.md"


def test_flags() -> None:
    """The page lists every flag of the archiver, and no other."""
    section = PAGE.read_text().partition("| flag | |")[2].partition("\n\n")[0]
    shown = {
        flag
        for line in section.splitlines()
        for flag in re.findall(r"`(--?[a-z-]+)`", line.split("|")[1] if line else "")
    }
    flags = {flag for action in parser()._actions for flag in action.option_strings}
    assert shown == flags - {"-h", "--help"}


def test_config_keys() -> None:
    """The page lists every key of ``model-config.yaml``, and no other; also every key of ``torchrun``."""
    rows = (
        PAGE.read_text().partition("| key | value | for |\n| --- | --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    )
    shown = [key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(shown) == sorted(CONFIG_KEYS)
    [torchrun] = [row.split("|")[3] for row in rows if row.startswith("| `torchrun`")]
    assert set(re.findall(r"`([\w-]+)`", torchrun)) == set(attributes_of(Torchrun))


@pytest.mark.integration
def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands) -> None:
    """The commands of the page do what it says, and so does its program."""
    here = run_commands(read_blocks("archives.md", "sh"))
    archive = here / "model_store" / "greet.mar"
    made = archive.read_bytes()
    archive.unlink()
    [program] = read_blocks("archives.md", "python")
    before = os.getcwd()
    os.chdir(here)
    try:
        exec(program.text, {})
    finally:
        os.chdir(before)
    assert archive.read_bytes() == made
