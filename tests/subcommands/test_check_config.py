# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.subcommands.check_config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twisted_serve.subcommands.group import operate


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TS_CONFIG_FILE", "elsewhere.properties")
    (tmp_path / "store").mkdir()


def check(text: str, *words: str) -> int:
    """Check a file with this text."""
    Path("c.properties").write_text(text)
    return operate(["check-config", "c.properties", *words])


def test_good(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that a server would start with."""
    assert check("model_store=store\n") == 0
    assert capsys.readouterr() == ("c.properties: a server would start with it\n", "")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "# first\n\nmodel_store=store\nnetty_client_threads=1\nbatch_size_=1\nworkers\\\n =2\nmax_connections=x",
            8,
            "'x'",
        ),
        ("model_store=store\ninference_address=nowhere", 2, "nowhere"),
        ("model_store=store\nmodels={\\\n\n", 2, "models"),
        ('model_store=store\n\nmodels={"m": {"1.0": {"batchSize": "x"}}}', 3, "batchSize"),
        ("model_store=store\nlog_level=$$NOT_SET$$", 2, "NOT_SET"),
        ("a=\\u12\n", None, "u12"),
    ],
)
def test_errors(text: str, line: int | None, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An error is status 1, with the line of the setting."""
    assert check(text, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    [error] = said["errors"]
    assert error["line"] == line, error
    assert words in error["message"]
    assert check(text) == 1
    where = "c.properties" if line is None else f"c.properties:{line}"
    assert f"{where}: error: " in capsys.readouterr().out


def test_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that are none are warnings with their lines, which fail only if asked to; missing files are listed."""
    text = "model_store=none\n\nmax_conections=7\nvmargs=-Xmx1g\n"
    assert check(text) == 0
    out = capsys.readouterr().out
    assert "c.properties:3: warning: 'max_conections' in" in out
    assert "did you mean max_connections?" in out
    assert "c.properties:4: warning: vmargs in" in out
    assert "c.properties: not checked here: --model-store directory not found: none" in out
    assert out.endswith("a server would start with it; 2 warnings\n")
    assert check(text, "--strict") == 1


def test_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    """A file may leave the model store to the command line."""
    assert check("max_connections=7\n") == 0
    assert "warning: model_store is not set" in capsys.readouterr().out


def test_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing, or a directory, is a wrong command line."""
    assert operate(["check-config", "none"]) == 2
    assert operate(["check-config", "store"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_not_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Any bytes are answered without a traceback."""
    Path("c.properties").write_bytes(b"\xff\xfe\0\x1b[2J=\n")
    assert operate(["check-config", "c.properties"]) in (0, 1)
    assert "\x1b" not in "".join(capsys.readouterr())
