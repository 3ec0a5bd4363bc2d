# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.planes.memory_usage`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.planes.memory_usage import FRESH, Memory, measured


class MemoryTests(SynchronousTestCase):
    """How much memory processes have."""

    def setUp(self) -> None:
        """Count how often the system is asked."""
        self.clock = Clock()
        self.asked: list[list[int]] = []
        self.memory = Memory(self.in_thread, self.clock.seconds)  # type: ignore[arg-type]

    def in_thread(self, work: object, pids: list[int]) -> Deferred[Mapping[int, int]]:
        """Do it at once."""
        self.asked.append(pids)
        done: Deferred[Mapping[int, int]] = Deferred()
        done.callback({pid: 10 * pid for pid in pids})
        return done

    def of(self, pids: Iterable[int]) -> Mapping[int, int]:
        """Ask."""
        return self.successResultOf(Deferred.fromCoroutine(self.memory.of(pids)))

    def test_fresh(self) -> None:
        """What was read a moment ago is not read again; what is old is, and what nobody asks for is forgotten."""
        self.assertEqual({1: 10, 2: 20}, self.of([1, 2]))
        self.assertEqual({1: 10, 3: 30}, self.of([3, 1]))
        self.assertEqual([[1, 2], [3]], self.asked)
        self.clock.advance(FRESH)
        self.assertEqual({2: 20}, self.of([2]))
        self.assertEqual([2], self.asked[-1])
        self.assertEqual({}, self.of([]))
        self.assertEqual(3, len(self.asked))

    def test_measured(self) -> None:
        """A process has some; one that is not there has none."""
        sizes = measured([os.getpid(), 2**31 - 1])
        self.assertGreater(sizes[os.getpid()], 1 << 20)
        self.assertEqual(0, sizes[2**31 - 1])
