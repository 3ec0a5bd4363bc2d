# SPDX-License-Identifier: Apache-2.0
"""Tests for `tests.integration.key_search`: that the search after each server finds a key where one is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.key_search import KeyWatch, files_with

KEY, OTHER = "0123456789abcdefghijKLMN-_012345", "zyxwvutsrqponmlkjihgfedcba987654"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_found(tmp_path: Path) -> None:
    """A file is found by what it holds or by its name, however deep it lies, and others are not."""
    held = write(tmp_path / "logs" / "old" / "ts_log.log", b"\xff\x00 refused " + KEY.encode() + b"\n")
    named = write(tmp_path / f"{OTHER}.mar", b"")
    write(tmp_path / "harmless", KEY[:-1].encode())
    assert sorted(files_with({KEY, OTHER}, [tmp_path])) == sorted([held, named])
    assert files_with({KEY}, [held, named]) == [held]
    assert files_with(set(), [tmp_path]) == []


def test_passed_over(tmp_path: Path) -> None:
    """What is larger than asked for, leads elsewhere, or has gone, is not looked at."""
    large = write(tmp_path / "weights.pt", KEY.encode() + bytes(100))
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "link").symlink_to(large)
    assert files_with({KEY}, [tmp_path, tmp_path / "gone"], largest=100) == []
    assert files_with({KEY}, [tmp_path / "cwd"]) == []
    assert files_with({KEY}, [tmp_path], largest=200) == [large]


def test_watch(tmp_path: Path) -> None:
    """Every key that was in the key file when it was looked at is searched for, outside of that file."""
    watch, output = KeyWatch(tmp_path), tmp_path / "output"
    for key in (KEY, OTHER):
        write(tmp_path / "key_file.json", json.dumps({"management": {"key": key}}).encode())
        watch.note()
    assert watch.found([tmp_path]) == []
    for key in (KEY, OTHER):
        write(output, f"a line with {key}".encode())
        assert watch.found([tmp_path]) == [output]
    watch.allow(output, "this test writes it there")
    assert watch.found([tmp_path]) == []


def test_strange_key_files(tmp_path: Path) -> None:
    """What is no key file, and what is too short to be a key, is passed over."""
    watch = KeyWatch(tmp_path)
    for content in ('{"management": {"key": "abc"}, "API": "abc", "inference": {"key": 1}}', "[]", "none", "{}"):
        write(tmp_path / "key_file.json", content.encode())
        watch.note()
    (tmp_path / "key_file.json").unlink()
    watch.note()
    write(tmp_path / "abc", b"abc")
    assert watch.found([tmp_path]) == []
