# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.cache`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.threads import Threads
from twisted_serve.archives.cache import Lease, UnpackedArchives
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.errors import InternalError, InvalidModel
from twisted_serve.testing.strategies.archives import model_entries, tar_archive, zip_archive


class UnpackedTestCase(SynchronousTestCase):
    """A test with an archive, and a place to unpack it."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.begin(Path(directory.name))

    def begin(self, root: Path) -> None:
        self.root = root
        self.archive = self.root / "m.mar"
        self.archive.write_bytes(zip_archive(model_entries({"handler.py": b"pass"})))
        self.threads = Threads()
        self.unpacked = UnpackedArchives(self.root / "models", UnpackLimits(), self.threads)

    def taking(self, archive: Path | None = None) -> Deferred[Lease]:
        return Deferred.fromCoroutine(self.unpacked.take(archive or self.archive))

    def taken(self, archive: Path | None = None) -> Lease:
        return self.successResultOf(self.taking(archive))

    def give_back(self, lease: Lease) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.unpacked.give_back(lease)))

    def directories(self) -> list[Path]:
        models = self.root / "models"
        return sorted(models.iterdir()) if models.exists() else []


class SharingTests(UnpackedTestCase):
    """Tests for sharing a directory."""

    def test_shared(self) -> None:
        """The same bytes are unpacked once, also from another file, and stay until the last has given them back."""
        copy = self.root / "copy.mar"
        copy.write_bytes(self.archive.read_bytes())
        leases = [self.taken(), self.taken(copy), self.taken()]
        self.assertEqual(self.directories(), [leases[0].directory])
        self.assertEqual({lease.directory for lease in leases}, {leases[0].directory})
        self.assertEqual(stat.S_IMODE(leases[0].directory.parent.stat().st_mode), 0o700)
        for lease in leases[:2]:
            self.give_back(lease)
            self.give_back(lease)
            self.assertTrue((lease.directory / "handler.py").exists())
        self.give_back(leases[2])
        self.assertEqual(self.directories(), [])

    def test_not_shared(self) -> None:
        """Other bytes are another directory, and so are the same bytes in another form."""
        other = self.root / "other.mar"
        other.write_bytes(zip_archive(model_entries({"handler.py": b"other"})))
        tar, named_zip = self.root / "t.tgz", self.root / "t.mar"
        for path in (tar, named_zip):
            path.write_bytes(tar_archive(model_entries({"handler.py": b"pass"})))
        self.assertEqual(len({self.taken().directory, self.taken(other).directory, self.taken(tar).directory}), 3)
        self.failureResultOf(self.taking(named_zip), InvalidModel)

    def test_again(self) -> None:
        """What was given back is unpacked anew, while the old directory is still being removed."""
        lease = self.taken()
        self.threads.holding = True
        going = Deferred.fromCoroutine(self.unpacked.give_back(lease))
        self.assertNoResult(going)
        coming = self.taking()
        self.threads.work()
        self.successResultOf(going)
        self.assertEqual(self.directories(), [self.successResultOf(coming).directory])

    def test_at_once(self) -> None:
        """Callers that arrive during unpacking wait for the same directory."""
        self.threads.holding = True
        three = [self.taking() for _ in range(3)]
        self.threads.work()
        self.assertEqual(self.directories(), [self.successResultOf(each).directory for each in three][:1])

    def test_given_back_at_once(self) -> None:
        """The first of them may be through with it before the others have it."""
        self.threads.holding = True
        first, second = self.taking(), self.taking()
        first.addCallback(lambda lease: Deferred.fromCoroutine(self.unpacked.give_back(lease)))
        self.threads.work()
        self.assertTrue(self.successResultOf(second).directory.exists())

    def test_failure_is_everybodys(self) -> None:
        """An archive that cannot be unpacked fails for all waiting callers, and the next caller tries again."""
        good = self.archive.read_bytes()
        self.archive.write_bytes(b"junk")
        self.threads.holding = True
        both = [self.taking(), self.taking()]
        both[1].addErrback(lambda failure: failure)
        self.threads.work()
        for each in both:
            self.failureResultOf(each, InvalidModel)
        self.assertEqual(self.directories(), [])
        self.archive.write_bytes(good)
        coming = self.taking()
        self.threads.work()
        self.successResultOf(coming)

    def test_cancelled(self) -> None:
        """Cancelling one wait does not affect others; when all are cancelled, no file is left behind."""
        for steps in range(3):
            self.threads.holding = True
            first, second = self.taking(), self.taking()
            self.threads.work(steps)
            first.cancel()
            self.failureResultOf(first, CancelledError)
            self.threads.work()
            self.give_back_all(second)
            alone = self.taking()
            self.threads.work(min(steps, 1))
            alone.cancel()
            self.failureResultOf(alone, CancelledError)
            self.threads.work()
            self.assertEqual(self.directories(), [])

    def give_back_all(self, second: Deferred[Lease]) -> None:
        lease = self.successResultOf(second)
        self.assertTrue(lease.directory.exists())
        going = Deferred.fromCoroutine(self.unpacked.give_back(lease))
        self.threads.work()
        self.successResultOf(going)

    def test_cancelled_and_failed(self) -> None:
        """A failure is reported to the callers that still wait, and not to a cancelled one."""
        self.archive.write_bytes(b"junk")
        self.threads.holding = True
        coming, other = self.taking(), self.taking()
        self.threads.work(2)
        coming.cancel()
        self.failureResultOf(coming, CancelledError)
        self.threads.work()
        self.failureResultOf(other, InvalidModel)

    def test_changed(self) -> None:
        """An archive that changes while it is read is refused, because it would be filed under the wrong hash."""
        self.threads.holding = True
        coming = self.taking()
        self.threads.work(1)
        self.archive.write_bytes(zip_archive(model_entries({"handler.py": b"evil"})))
        self.threads.work()
        error = self.failureResultOf(coming, InvalidModel).value
        self.assertEqual(error.message, "m.mar changed while it was read.")
        self.assertEqual(self.directories(), [])

    def test_disk_full(self) -> None:
        """A full disk is reported with the system's message, and no file is left behind."""
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for place in ("twisted_serve.archives.extraction.write_all", "os.mkdir"):
            with mock.patch(place, side_effect=full):
                error = self.failureResultOf(self.taking(), InternalError).value
            self.assertEqual((error.status, error.reason), (500, "No space left on device"))
            self.assertEqual(error.message, "Failed to save model: m.mar")
            self.assertEqual(self.directories(), [])

    def test_missing(self) -> None:
        """An archive that is gone when it is to be read is an error."""
        self.archive.unlink()
        error = self.failureResultOf(self.taking(), InternalError).value
        self.assertEqual(error.reason, "No such file or directory")


class SharingProperties(UnpackedTestCase):
    """Properties of any order of events."""

    @given(
        st.lists(st.tuples(st.sampled_from(["take", "cancel", "give back", "work"]), st.integers(0, 5)), max_size=30)
    )
    @settings(deadline=None)
    def test_orders(self, events: list[tuple[str, int]]) -> None:
        """In any order of events: a lease guarantees the files, and after the last lease no file is left."""
        with TemporaryDirectory() as directory:
            self.begin(Path(directory))
            self.threads.holding = True
            waiting: list[Deferred[Lease]] = []
            leases: list[Lease] = []

            def ended(result: Any, mine: Deferred[Lease]) -> None:
                waiting.remove(mine)
                if isinstance(result, Lease):
                    leases.append(result)
                else:
                    result.trap(CancelledError)

            for event, number in [*events, ("work", 1000)]:
                if event == "take":
                    coming = self.taking()
                    waiting.append(coming)
                    coming.addBoth(ended, coming)
                elif event == "cancel" and waiting:
                    waiting[number % len(waiting)].cancel()
                elif event == "give back" and leases:
                    Deferred.fromCoroutine(self.unpacked.give_back(leases.pop(number % len(leases))))
                elif event == "work":
                    self.threads.work(number)
                for lease in leases:
                    assert (lease.directory / "handler.py").exists()
            assert len({lease.directory for lease in leases}) <= 1
            for lease in leases:
                Deferred.fromCoroutine(self.unpacked.give_back(lease))
            self.threads.work()
            assert waiting == []
            assert self.directories() == []
