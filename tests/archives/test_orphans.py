# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.orphans`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from unittest.mock import patch

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from twisted_serve.archives import orphans
from twisted_serve.archives.orphans import LOCK, PREFIX, WorkDirectory, create_locked_file, remove_orphans


class OrphansTestCase(SynchronousTestCase):
    """A temporary directory and a store; a server with closed descriptors counts as dead."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.temporary = Path(directory.name) / "tmp"
        self.store = Path(directory.name) / "store"
        self.temporary.mkdir()
        self.store.mkdir()
        self.descriptors = len(os.listdir("/proc/self/fd"))

    def dead(self) -> Path:
        """Leave a work directory behind, as a killed server does."""
        work = WorkDirectory.make(self.temporary)
        (work.path / "models" / "deep" / "er").mkdir(parents=True)
        (work.path / "models" / "file").touch()
        os.close(work._lock)
        return work.path

    def clean(self) -> list[str]:
        return sorted(Path(path).name for path in remove_orphans(self.temporary, [self.store], lambda: False))

    def names(self) -> list[str]:
        return sorted(os.listdir(self.temporary))


class WorkDirectoryTests(OrphansTestCase):
    """Tests for the work directories of servers."""

    def test_life(self) -> None:
        """A directory is its owner's alone, and goes with it; that twice is no harm."""
        work = WorkDirectory.make(self.temporary)
        self.assertEqual(stat.S_IMODE(work.path.stat().st_mode), 0o700)
        self.assertTrue(work.path.name.startswith(PREFIX))
        self.assertEqual(self.clean(), [])
        work.remove()
        work.remove()
        self.assertEqual((self.names(), len(os.listdir("/proc/self/fd"))), ([], self.descriptors))

    def test_dead(self) -> None:
        """That of a dead server is removed, that of a living one is not."""
        dead, living = self.dead(), WorkDirectory.make(self.temporary)
        self.assertEqual(self.clean(), [dead.name])
        self.assertEqual(self.names(), [living.path.name])
        living.remove()
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.descriptors)

    def test_left_alone(self) -> None:
        """What has another name, no lock, a lock that is no file, or is a link, is no business of ours."""
        dead = self.dead()
        dead.rename(self.store / dead.name)
        (self.temporary / f"{PREFIX}link").symlink_to(self.store / dead.name)
        (self.temporary / f"{PREFIX}old" / "models").mkdir(parents=True)
        (self.temporary / f"{PREFIX}file").touch()
        (self.temporary / f"{PREFIX}fifo").mkdir()
        os.mkfifo(self.temporary / f"{PREFIX}fifo" / LOCK)
        (self.temporary / f"{PREFIX}linked").mkdir()
        (self.temporary / f"{PREFIX}linked" / LOCK).symlink_to(self.store / dead.name / LOCK)
        self.dead().rename(self.temporary / "other")
        before = self.names()
        self.assertEqual(self.clean(), [])
        self.assertEqual(self.names(), before)
        self.assertEqual(sorted(os.listdir(self.store / dead.name)), [LOCK, "models"])

    def test_other_users(self) -> None:
        """What belongs to another user stays, were we root."""
        if os.geteuid() != 0:
            raise SkipTest("only root can make files of another user")
        mine, directory, lock = self.dead(), self.dead(), self.dead()
        os.chown(directory, 65534, 65534)
        os.chown(lock / LOCK, 65534, 65534)
        self.assertEqual(self.clean(), [mine.name])

    def test_stopping(self) -> None:
        """A server that stops does not go on with it."""
        self.dead()
        self.assertEqual(remove_orphans(self.temporary, [self.store], lambda: True), [])
        self.assertEqual(remove_orphans(self.temporary / "absent", [self.store / "absent"], lambda: False), [])

    def test_faster(self) -> None:
        """A directory that another server's start removes before it is locked is made again."""
        real = orphans.lock_new_file
        met: list[str] = []

        def lock_new_file(descriptor: int, path: Path) -> bool:
            if not met:
                met.extend(self.clean())
            return real(descriptor, path)

        with patch.object(orphans, "lock_new_file", lock_new_file):
            work = WorkDirectory.make(self.temporary)
        self.assertEqual(len(met), 1)
        self.assertEqual(self.names(), [work.path.name])
        self.assertNotEqual(met, self.names())
        work.remove()
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.descriptors)

    def test_together(self) -> None:
        """However many servers start concurrently, none loses its directory."""
        lost: list[Path] = []

        def starts() -> None:
            for _ in range(100):
                work = WorkDirectory.make(self.temporary)
                remove_orphans(self.temporary, [self.store], lambda: False)
                if not (work.path / LOCK).exists():
                    lost.append(work.path)
                work.remove()

        threads = [Thread(target=starts) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual((lost, self.names()), ([], []))


class DownloadTests(OrphansTestCase):
    """Tests for unfinished downloads in a store."""

    def test_downloads(self) -> None:
        """Those of dead servers are removed; those under way, and files of other names, stay."""
        dead, living = f".{'0' * 32}.part", f".{'1' * 32}.part"
        os.close(create_locked_file(self.store / dead))
        claim = create_locked_file(self.store / living)
        for name in ("m.mar", ".part", f"{'2' * 32}.part", f".{'3' * 32}.part.mar", f".{'g' * 32}.part"):
            (self.store / name).touch()
        (self.store / f".{'4' * 32}.part").symlink_to("m.mar")
        (self.store / f".{'5' * 32}.part").mkdir()
        before = sorted(os.listdir(self.store))
        self.assertEqual(self.clean(), [dead])
        self.assertEqual(sorted(os.listdir(self.store)), [name for name in before if name != dead])
        os.close(claim)
        self.assertEqual(self.clean(), [living])
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.descriptors)

    def test_taken(self) -> None:
        """A name that is taken is an error, and no other file is touched."""
        (self.store / "x").write_text("kept")
        self.assertRaises(FileExistsError, create_locked_file, self.store / "x")
        self.assertEqual((self.store / "x").read_text(), "kept")
