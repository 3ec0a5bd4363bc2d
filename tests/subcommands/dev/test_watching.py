# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.subcommands.dev.watching`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted_serve.subcommands.dev.watching import SETTLING, Stamp, Watch, stamps_of

A, B = Path("/a.py"), Path("/b.py")
OLD: dict[Path, Stamp] = {A: (1, 1, 1), B: (1, 1, 2)}
NEW: dict[Path, Stamp] = {A: (2, 1, 1), B: (1, 1, 2)}


def watching() -> Watch:
    watch = Watch()
    watch.begin(OLD)
    return watch


def test_nothing() -> None:
    """Files that are as they were have not changed, however long."""
    watch = watching()
    assert [watch.look(dict(OLD), now) for now in (0.0, 1.0, 100.0)] == [(), (), ()]


def test_still() -> None:
    """A changed file counts when all files have been still."""
    watch = watching()
    assert watch.look(NEW, 10.0) == ()
    assert watch.look(dict(NEW), 10.0 + SETTLING / 2) == ()
    assert watch.look(dict(NEW), 10.0 + 1.01 * SETTLING) == (A,)


def test_several_steps() -> None:
    """A file that an editor empties, or removes, and writes again is one change."""
    watch = watching()
    empty: dict[Path, Stamp] = {A: (2, 0, 1), B: None}
    assert watch.look(empty, 1.0) == ()
    assert watch.look(NEW, 1.0 + SETTLING) == ()
    assert watch.look(NEW, 1.0 + 2.01 * SETTLING) == (A,)


def test_changed_back() -> None:
    """A file that has become what it was needs no attempt."""
    watch = watching()
    assert watch.look(NEW, 1.0) == ()
    assert watch.look(OLD, 1.1) == ()
    assert watch.look(OLD, 9.0) == ()


def test_once() -> None:
    """What has been tried is not tried again, also if it failed."""
    watch = watching()
    watch.look(NEW, 1.0)
    assert watch.look(NEW, 2.0) == (A,)
    watch.begin(NEW)
    assert watch.look(dict(NEW), 9.0) == ()


def test_during_an_attempt() -> None:
    """A change during an attempt is seen after it: the stamps are from before the files were read."""
    watch = watching()
    watch.begin(NEW)
    newer: dict[Path, Stamp] = {A: (3, 1, 1), B: (1, 1, 2)}
    watch.look(newer, 5.0)
    assert watch.look(newer, 6.0) == (A,)


def test_stamps(tmp_path: Path) -> None:
    """A stamp tells a write, a replacement by a file of equal time and size, a removal, and a new module."""
    file = tmp_path / "a.py"
    file.write_text("1")
    [first] = stamps_of([file]).values()
    assert stamps_of([file]) == {file: first}
    file.write_text("12")
    assert stamps_of([file])[file] != first
    other = tmp_path / "b"
    other.write_text("34")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    before = stamps_of([file, tmp_path])
    os.replace(other, file)
    assert stamps_of([file])[file] != before[file]
    (tmp_path / "c.txt").touch()
    assert stamps_of([tmp_path])[tmp_path] == before[tmp_path]
    (tmp_path / "c.py").touch()
    assert stamps_of([tmp_path])[tmp_path] != before[tmp_path]
    file.unlink()
    assert stamps_of([file]) == {file: None}
