# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.subcommands.logs` and `waiting`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.subcommands.test_finding import server
from twisted_serve.subcommands.logs import following, last_lines, place_of
from twisted_serve.subcommands.outcomes import Failed


def test_last_lines(tmp_path: Path) -> None:
    """The last wanted lines are returned; one that is being written is left for later."""
    path = tmp_path / "log"
    path.write_bytes(b"a1\nb\na2\r\na\xff3\na4")
    with path.open("rb") as file:
        assert last_lines(file, 2, lambda line: line.startswith("a")) == ["a2", "a\ufffd3"]
        assert file.read() == b"a4"
    with path.open("rb") as file:
        assert last_lines(file, 0, lambda _line: True) == []


def test_following(tmp_path: Path) -> None:
    """New lines are yielded, whole, through rotation and truncation, to the end of the server."""
    path = tmp_path / "log"
    path.write_bytes(b"old\npar")
    steps = iter(
        [
            lambda: path.write_bytes(path.read_bytes() + b"tial\n"),
            lambda: (path.rename(tmp_path / "log.1"), path.write_bytes(b"rotated\n")),
            lambda: path.write_bytes(b"cut\n"),
            path.unlink,
            lambda: path.write_bytes(b"again\n"),
        ]
    )
    left = [5]

    def alive() -> bool:
        left[0] -= 1
        return left[0] >= -1

    def sleep(_seconds: float) -> None:
        step: Any = next(steps, None)
        if step is not None:
            step()

    with path.open("rb") as file:
        assert last_lines(file, 9, lambda _line: True) == ["old"]
        assert list(following(path, file, alive, sleep)) == ["partial", "rotated", "cut", "again"]


def test_end(tmp_path: Path) -> None:
    """What was written before the end of the server is still shown."""
    path = tmp_path / "log"
    path.write_bytes(b"last\n")
    with path.open("rb") as file:
        assert list(following(path, file, lambda: False)) == ["last"]


def test_places(tmp_path: Path) -> None:
    """The file is that of the log directory; or what standard output goes to; else it is said where the log is."""
    with_files = server(log_directory="/logs", log_file="/out")
    assert place_of(with_files, None, False) == (Path("/logs/ts_log.log"), None)
    assert place_of(with_files, None, True) == (Path("/logs/access_log.log"), None)
    assert place_of(with_files, "m", False) == (Path("/logs/model_log.log"), "-m_")
    to_file = server(log_file="/out")
    assert place_of(to_file, None, False) == (Path("/out"), None)
    assert place_of(to_file, "m", False) == (Path("/out"), "-m_")
    assert place_of(to_file, None, True) == (Path("/out"), "ACCESS_LOG")
    with pytest.raises(Failed, match="its standard output only"):
        place_of(server(), None, False)
    with pytest.raises(Failed, match="goes to twistd's log"):
        place_of(server(hosted=True), None, False)
    assert os.listdir(tmp_path) == []
