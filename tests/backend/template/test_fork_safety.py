# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.template.fork_safety`: what makes a loaded model unfit to be forked."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.modules import ABSENT, replace_modules
from twisted_serve.backend.template import fork_safety
from twisted_serve.backend.template.fork_safety import (
    Safety,
    descriptors,
    one_thread,
    reseed,
    set_threads,
    wanted_threads,
)


class SafetyTests(SynchronousTestCase):
    """A process before and after a model was loaded."""

    def setUp(self) -> None:
        """Check only what a test does: the test process has other threads and children."""
        self.patch(fork_safety, "_threads", lambda: None)
        self.patch(fork_safety, "_children", lambda: None)
        replace_modules(self, {"torch": None})
        self.safety = Safety(descriptors())

    def objection(self, **attributes: object) -> str | None:
        """Return the objection to forking a handler with these attributes."""
        return self.safety.objection(SimpleNamespace(**attributes))

    def test_nothing(self) -> None:
        """A handler that keeps only memory can be forked; so can one that appends to a log, or asks the kernel."""
        self.assertIsNone(self.objection())
        path = Path(self.mktemp())
        with path.open("a"), Path("/dev/urandom").open("rb"):
            self.assertIsNone(self.objection())

    def test_open(self) -> None:
        """One that holds a connection, an event loop or a file with a position cannot."""
        with socket.socket():
            self.assertEqual("it holds socket open", self.objection())
        reading, writing = os.pipe()
        self.assertEqual("it holds pipe open", self.objection())
        os.close(reading)
        os.close(writing)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "rows.bin")
            path.write_bytes(b"rows")
            with path.open("rb"):
                self.assertEqual("it holds rows.bin open", self.objection())
            with path.open("r+b"):
                self.assertEqual("it holds rows.bin open", self.objection())
        self.assertIsNone(self.objection())

    def test_device(self) -> None:
        """One that is on a device, or has touched one, cannot."""
        self.assertIsNone(self.objection(device=SimpleNamespace(type="cpu")))
        self.assertEqual("it uses mps", self.objection(device=SimpleNamespace(type="mps")))
        cuda = SimpleNamespace(is_initialized=lambda: True)
        replace_modules(self, {"torch": SimpleNamespace(cuda=cuda)})
        self.assertEqual("it uses cuda", self.objection())


class ThreadsTests(SynchronousTestCase):
    """Threads, which a fork has not."""

    def test_named(self) -> None:
        """Threads that a handler started are told by name."""
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, name="AAA of the handler", daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)
        found = fork_safety._threads()
        assert found is not None
        self.assertIn("AAA of the handler", found)

    def test_wanted(self) -> None:
        """The environment says how many a worker computes with; nonsense says nothing."""
        for text, count in (("3", 3), ("4,2", 4), (" 2 ", 2), ("0", None), ("-1", None), ("many", None), ("", None)):
            self.patch(os, "environ", {"OMP_NUM_THREADS": text})
            self.assertEqual(count, wanted_threads())

    def test_set(self) -> None:
        """Torch is told so if it is there; nothing is imported for it."""
        chosen: list[int] = []
        replace_modules(self, {"torch": SimpleNamespace(set_num_threads=chosen.append), "numpy.random": ABSENT})
        set_threads(3)
        set_threads(None)
        replace_modules(self, {"torch": ABSENT, "numpy.random": ABSENT})
        set_threads(4)
        self.assertEqual([3], chosen)

    def test_one(self) -> None:
        """A model is loaded with one thread; a handler that chooses a number, even that, is noticed and obeyed."""
        chosen: list[int] = []
        torch: Any = SimpleNamespace(set_num_threads=chosen.append)
        replace_modules(self, {"torch": torch, "numpy.random": ABSENT})
        before = torch.set_num_threads
        with one_thread() as has_chosen:
            self.assertFalse(has_chosen())
            torch.set_num_threads(1)
            self.assertTrue(has_chosen())
        self.assertEqual([1, 1], chosen)
        self.assertEqual(before, torch.set_num_threads)
        replace_modules(self, {"torch": ABSENT, "numpy.random": ABSENT})
        with one_thread() as has_chosen:
            self.assertFalse(has_chosen())

    def test_reseed(self) -> None:
        """Each fork gets other chance."""
        seeds: list[int] = []
        modules = {
            "numpy.random": SimpleNamespace(seed=seeds.append),
            "torch": SimpleNamespace(manual_seed=seeds.append),
        }
        replace_modules(self, modules)
        reseed()
        reseed()
        self.assertEqual(4, len(set(seeds)))
