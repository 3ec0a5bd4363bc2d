# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.subcommands.group` and the dispatch in :mod:`twisted_serve.cli`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from twisted_serve import cli
from twisted_serve.launcher import SUB_COMMANDS
from twisted_serve.subcommands import COMPLETION, NAMES
from twisted_serve.subcommands.group import main, operate
from twisted_serve.subcommands.outcomes import ExitStatus, Failed, NoServer, NotAuthorized


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is running here, and none is named."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name in ("XDG_RUNTIME_DIR", "TS_URL", "TS_KEY", COMPLETION):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("word", NAMES)
def test_list(word: str) -> None:
    """Each word is a command with this name, whose summary is the list's."""
    module, attribute, summary = NAMES[word]
    command = getattr(import_module(f"twisted_serve.subcommands.{module}"), attribute)
    assert isinstance(command, click.Command)
    assert command.name == word
    assert command.get_short_help_str(1000) == summary
    assert f"  {word} " in SUB_COMMANDS


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """TorchServe's help lists the sub-commands; each has its own."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "token         Show, rotate and manage keys." in capsys.readouterr().out
    assert cli.main(["token", "--help"]) == ExitStatus.DONE
    assert "revoke" in capsys.readouterr().out


def test_unknown_word(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that is no sub-command is answered with a similar one, and starts nothing."""
    assert cli.main(["tokne"]) == ExitStatus.USAGE
    assert "'tokne' is no sub-command: did you mean token?" in capsys.readouterr().err
    assert cli.main(["zzz"]) == ExitStatus.USAGE
    assert "twisted-serve --help lists the sub-commands" in capsys.readouterr().err


def test_torchserve_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    """TorchServe's own command has no sub-commands."""
    with pytest.raises(SystemExit) as ended:
        cli.main_as_torchserve(["token", "list"])
    assert ended.value.code == 2
    assert "unrecognized arguments: token list" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line has its own status, and a line that says what is wrong."""
    assert operate(["token", "show", "nonsense"]) == ExitStatus.USAGE
    assert "'nonsense' is not one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Failed("It failed."), 1, "Error: It failed.\n"),
        (NoServer("None."), 3, "Error: None.\n"),
        (NotAuthorized("No."), 4, "Error: No.\n"),
        (PermissionError(13, "Permission denied", "file"), 1, "Error: file: Permission denied\n"),
        (OSError("odd"), 1, "Error: odd\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (click.Abort(), 130, ""),
        (Failed("\x1b[2Jgone"), 1, "Error: \\x1b[2Jgone\n"),
    ],
)
def test_status(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each end has its status and one line without a traceback; a server's text cannot control the terminal."""

    def fail(*_args: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(main, "invoke", fail)
    assert operate(["token"]) == status
    assert capsys.readouterr() == ("", line)


def test_statuses() -> None:
    """Each status is documented in the table of the code."""
    assert {int(each): each.meaning for each in ExitStatus}[3].startswith("No server")
    assert [int(each) for each in ExitStatus] == [0, 1, 2, 3, 4, 130]


def test_closed_pipe() -> None:
    """A reader that has gone ends the command without a word."""
    program = "import sys; from twisted_serve.cli import main; sys.exit(main(['completion', 'zsh']))"
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_nothing_of_the_server() -> None:
    """A sub-command imports neither Twisted nor the launcher of servers, and so begins quickly."""
    program = (
        "import sys; from twisted_serve.cli import main; main(['token', '--help'])\n"
        "print(*[name for name in ('twisted', 'psutil', 'rich', 'twisted_serve.launcher') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.splitlines()[-1] == ""


def test_completion_protocol() -> None:
    """The variable that the shells' scripts set completes sub-commands, options, values and TorchServe's flags."""

    def completed(*words: str) -> list[str]:
        environ = {**os.environ, COMPLETION: "bash_complete", "COMP_WORDS": " ".join(words)}
        environ["COMP_CWORD"] = str(len(words) - 1)
        program = "import sys; from twisted_serve.cli import main; sys.exit(main([]))"
        ended = subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60, check=True
        )
        return [line.partition(",")[2] for line in ended.stdout.splitlines()]

    assert completed("twisted-serve", "tok") == ["token"]
    assert completed("twisted-serve", "--st") == ["--start", "--stop"]
    assert completed("twisted-serve", "token", "sh") == ["show"]
    assert completed("twisted-serve", "token", "show", "man") == ["management"]
    assert "--header" in completed("twisted-serve", "token", "show", "--h")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script of each shell calls this command."""
    assert operate(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{COMPLETION}={shell}_complete" in script
    assert "twisted-serve" in script


def test_shims(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flags of "shims" are its own, as before."""
    assert operate(["shims", str(tmp_path / "bin"), "--force"]) == 0
    assert (tmp_path / "bin/torchserve").exists()
    with pytest.raises(SystemExit):
        operate(["shims", "--help"])
    assert "usage: twisted-serve shims [-h] [--force] DIR" in capsys.readouterr().out
