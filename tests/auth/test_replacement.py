# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.replacement``, and for what key files owe to it: one file has one owner.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOLCK
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.test_key_file import some_keys
from twisted_serve.auth.key_file import KeyFile, KeyFileInUse, render_keys
from twisted_serve.auth.replacement import replacing

# The calls between which another server may run.
_STEPS = [(os, name) for name in ("open", "replace", "fsync", "unlink", "lstat", "close")]
_STEPS += [(fcntl, "flock"), (time, "sleep")]


class Threads:
    """
    Threads of which one runs at a time: a random choice says which, before each of `_STEPS`.

    :param choose: Chooses the index of the next among so many threads.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self._choose = choose
        self._gates: dict[int, threading.Semaphore] = {}
        self._stopped = threading.Semaphore(0)

    def run(self, calls: list[Callable[[], None]]) -> None:
        """Run all calls to their ends."""
        living = []
        with self._stepping():
            for call in calls:
                thread = threading.Thread(target=self._run, args=(call,), daemon=True)
                thread.start()
                self._stopped.acquire()
                living.append(thread)
            for _ in range(100_000):
                if not living:
                    return
                thread = living[self._choose(len(living))]
                assert thread.ident is not None
                self._gates[thread.ident].release()
                self._stopped.acquire()
                living = [each for each in living if each.ident in self._gates]
        raise AssertionError("no end")

    def _run(self, call: Callable[[], None]) -> None:
        ident = threading.get_ident()
        self._gates[ident] = threading.Semaphore(0)
        try:
            self._pause()
            call()
        finally:
            del self._gates[ident]
            self._stopped.release()

    def _pause(self) -> None:
        gate = self._gates.get(threading.get_ident())
        if gate is not None:
            self._stopped.release()
            assert gate.acquire(timeout=30)

    @contextmanager
    def _stepping(self) -> Iterator[None]:
        def stepping(real: Callable[..., object], name: str) -> Callable[..., object]:
            def step(*args: object, **more: object) -> object:
                self._pause()
                # The others run while this one sleeps.
                return None if name == "sleep" else real(*args, **more)

            return step

        patches = [patch.object(module, name, stepping(getattr(module, name), name)) for module, name in _STEPS]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in patches:
                each.stop()


class ReplacingTests(SynchronousTestCase):
    """Tests for the lock."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.path = self.directory / "file"
        self.lock = self.directory / ".file.lock"

    def test_nothing_is_left(self) -> None:
        """The lock file is there while the lock is held, for its owner alone; afterwards it is gone."""
        for _ in range(2):
            with replacing(self.path):
                self.assertEqual(self.lock.stat().st_mode & 0o777, 0o600)
            self.assertEqual(list(self.directory.iterdir()), [])
        with self.assertRaises(IndexError), replacing(self.path):
            [].pop()
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_held(self) -> None:
        """While another holds the lock it is waited for, but not for ever; the error names the lock file."""
        with replacing(self.path):
            with patch("time.sleep") as slept, self.assertRaisesRegex(OSError, r"\.file\.lock"), replacing(self.path):
                pass
            self.assertGreater(slept.call_count, 100)
            self.assertTrue(self.lock.exists())

    def test_left_behind(self) -> None:
        """A lock file whose process was killed is used, and removed."""
        self.lock.touch()
        with replacing(self.path):
            self.assertTrue(self.lock.exists())
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_link(self) -> None:
        """A symbolic link in the place of the lock file is not followed."""
        self.lock.symlink_to(self.directory / "elsewhere")
        with self.assertRaises(OSError), replacing(self.path):
            pass
        self.assertFalse((self.directory / "elsewhere").exists())

    def test_no_locks(self) -> None:
        """On a file system without locks the error says so, and nothing is left."""
        with (
            patch("fcntl.flock", side_effect=OSError(ENOLCK, "No locks available")),
            self.assertRaisesRegex(OSError, "No locks available"),
            replacing(self.path),
        ):
            pass
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_another_users_lock(self) -> None:
        """A lock file that cannot be opened is waited for as one that is held."""
        self.lock.touch()
        with (
            patch("os.open", side_effect=PermissionError(13, "no")),
            patch("time.sleep") as slept,
            self.assertRaisesRegex(OSError, "another process holds"),
            replacing(self.path),
        ):
            pass
        self.assertGreater(slept.call_count, 100)

    def test_slow_disk(self) -> None:
        """Of servers that start at once on a slow disk, one owns the key file; the others are told so."""
        together, synced, real = threading.Barrier(4), threading.local(), os.fsync

        def slow(descriptor: int) -> None:
            # Each has written its file before the first goes on.
            if not hasattr(synced, "once"):
                synced.once = together.wait(30)
            real(descriptor)

        def at_once(calls: list[Callable[[], None]]) -> None:
            threads = [threading.Thread(target=call) for call in calls]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)

        with patch("os.fsync", slow):
            started = self.start(4, at_once)
        self.check_owner(*started)

    @given(st.randoms(use_true_random=False), st.sampled_from(["nothing", "stale", "link", "lock"]), st.integers(2, 3))
    def test_any_order(self, random: Random, there: str, servers: int) -> None:
        """In whatever order servers that start at once run, and whatever was there, one owns the file."""
        for path in (self.path, self.lock):
            path.unlink(missing_ok=True)
        if there == "stale":
            self.path.write_text("{}")
        elif there == "link":
            self.path.symlink_to("nowhere")
        elif there == "lock":
            self.lock.touch()
        self.check_owner(*self.start(servers, Threads(random.randrange).run))

    def start(self, servers: int, run: Callable[[list[Callable[[], None]]], None]) -> tuple[list[KeyFile], list[str]]:
        files = [KeyFile(self.path) for _ in range(servers)]
        outcomes = [""] * servers

        def save(index: int) -> None:
            try:
                files[index].save(some_keys(index))
            except KeyFileInUse:
                outcomes[index] = "in use"
            except Exception as e:
                outcomes[index] = repr(e)
            else:
                outcomes[index] = "owner"

        run([partial(save, index) for index in range(servers)])
        return files, outcomes

    def check_owner(self, files: list[KeyFile], outcomes: list[str]) -> None:
        self.assertEqual(sorted(outcomes), sorted(["owner"] + ["in use"] * (len(files) - 1)))
        owner = outcomes.index("owner")
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys(owner)))
        self.assertEqual(list(self.directory.iterdir()), [self.path])
        for file, outcome in zip(files, outcomes, strict=True):
            if outcome != "owner":
                file.remove()
        self.assertTrue(self.path.exists())
        files[owner].remove()
        self.assertEqual(list(self.directory.iterdir()), [])
