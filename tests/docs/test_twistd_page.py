# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/twistd.md``: its commands and programs, run as they stand there."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

from tests.deploy.test_units import parse_start, read_unit, unit
from tests.docs.conftest import greet_model
from twisted_serve.config.arguments import settings_parser
from twisted_serve.tap import WITHOUT_EFFECT

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

PAGE = "twistd.md"
TEXT = (Path(__file__).resolve().parents[2] / "docs" / PAGE).read_text()

# Puts the servers of the page on the ports of this test, beside the files of the page.
PORTS = """
for role in "inference $P8080" "management $P8081" "metrics $P8082"; do
  echo "${role% *}_address=http://127.0.0.1:${role#* }" >> config.properties
done
cp "$HIDDEN/models.tac" .
"""


@pytest.mark.integration
def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands, tmp_path: Path) -> None:
    """With the model of "Getting started", every command works and prints what the page says, and nothing is left."""
    *handler, model = greet_model()
    [program] = read_blocks(PAGE, "python")
    (tmp_path / "hidden" / "models.tac").write_text(program.text)
    here = run_commands([*handler, evolve(model, text=model.text + PORTS), *read_blocks(PAGE, "sh")])
    logs = {"application.log", "twist.log", "twistd.log"}
    made = {"config.properties", "greet.py", "model_store", "models.tac"}
    assert {path.name for path in here.iterdir()} == made | logs
    for log in logs:
        assert "Torchserve stopped." in (here / log).read_text()
        assert "Traceback" not in (here / log).read_text()


def test_excused_commands(read_blocks: ReadBlocks) -> None:
    """No command goes untested, but for those that need root or change the machine."""
    excused = [block for block in read_blocks(PAGE, "sh") if block.excuse is not None]
    assert ["root" in str(block.excuse) or "machine" in str(block.excuse) for block in excused] == [True, True]


def options_in(heading: str) -> set[str]:
    """Return the options in the first cells of a table's rows."""
    rows = TEXT.partition(heading)[2].partition("\n\n")[0].splitlines()
    return {option for row in rows for option in re.findall(r"`(--?[a-z-]+)", row.split(" | ")[0])}


def test_options() -> None:
    """The page has all options of the server, options of twistd that exist, and the settings without effect."""
    made = settings_parser(ArgumentParser, "", "")
    assert options_in("| option | |\n") == set(made._option_string_actions) - {"-h", "--help"}
    twistd = ServerOptions()
    known = {f"--{name.rstrip('=')}" for name in twistd.longOpt} | {f"-{name}" for name in twistd.shortOpt}
    assert len(options_in("| option of `twistd` | |\n")) > 8
    assert options_in("| option of `twistd` | |\n") <= known
    rotation = {"log_rotate_size", "log_rotate_keep"}
    assert all(f"`{key}`" in TEXT for key in set(WITHOUT_EFFECT) - rotation)


def test_units(read_blocks: ReadBlocks) -> None:
    """What is to replace the service's command has options that exist, and serves the same."""
    [block] = read_blocks(PAGE, "ini")
    instead = parse_start(read_unit(block.text.replace("ExecStart=\n", "", 1))["Service"]["ExecStart"])
    ours = parse_start(unit("service")["Service"]["ExecStart"])
    assert instead == evolve(ours, foreground=True)
    service = dict(unit("service")["Service"])
    table = TEXT.partition("| for | |")[2].partition("\n\n")[0]
    for key in re.findall(r"`([A-Z]\w+)=", table):
        assert key in service or key in ("User", "ListenStream")
