# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.metric_buffer`."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.backend import metric_buffer
from twisted_serve.backend.call import MAX_MESSAGE
from twisted_serve.backend.metric_buffer import LONGEST_TEXT, LONGEST_WAIT, MOST_VALUES, Gathering, Patience
from twisted_serve.metrics.torchserve.lines import parse_line
from twisted_serve.wire.codec import encode
from twisted_serve.wire.messages import PredictFailed
from twisted_serve.workers.local import longest_frame

# What may happen while a batch is being answered, and between two: a value, time that passes, a chunk, the answer.
STEPS = st.lists(st.sampled_from(["value", "value", "odd", "blink", "while", "chunk", "answer"]), max_size=60)


class GatheringTests(SynchronousTestCase):
    """Values of one batch after the other."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.patience = Patience()
        self.printed: list[str] = []
        self.begin()

    def begin(self) -> None:
        """Begin a batch."""
        self.gathering = Gathering(self.patience, self._print, self.clock.seconds)

    def emit(self, number: float) -> bool:
        """Emit a value; print it as a handler's metrics would if it is not kept."""
        kept = self.gathering.keep("A", "Count", number, "Level:Host", "GAUGE", "h", 5, "r")
        if not kept:
            self.printed.append(f"[METRICS]A.Count:{number}|#Level:Host|#type:GAUGE|#hostname:h,5,r")
        return kept

    def answer(self) -> list[float]:
        """End the batch and begin the next; give the values that left with the answer."""
        taken = self.gathering.take()
        self.gathering.end()
        self.begin()
        return [each.value for each in taken]

    def _print(self, lines: str) -> None:
        self.printed += lines.splitlines()

    def _values(self) -> list[float]:
        return [parse_line(line).value for line in self.printed]

    def test_patience(self) -> None:
        """Values wait as soon as a batch has shown that it is not for long, until one has shown that it is."""
        for pause, waits in ((0.0, False), (0.0, True), (LONGEST_WAIT, True), (0.0, False), (0.0, True)):
            self.assertEqual(self.emit(1), waits)
            self.clock.advance(pause)
            self.answer()

    def test_late(self) -> None:
        """The time before the first value does not matter: it did not wait then."""
        for waits in (False, True, True):
            self.clock.advance(60.0)
            self.assertEqual(self.emit(1), waits)
            self.answer()

    def test_age(self) -> None:
        """Values that have waited too long are printed before the next value, and further values are not buffered."""
        self.emit(1)
        self.answer()
        self.assertEqual([self.emit(2), self.emit(3)], [True, True])
        self.clock.advance(LONGEST_WAIT)
        self.assertEqual([self.emit(4), self.emit(5)], [False, False])
        self.assertEqual(self.answer(), [])
        self.assertEqual(self._values(), [1, 2, 3, 4, 5])

    def test_number(self) -> None:
        """Only so many wait."""
        self.emit(0)
        self.answer()
        for number in range(1, 2 * MOST_VALUES):
            self.emit(number)
        self.assertEqual(self._values() + self.answer(), list(range(2 * MOST_VALUES)))
        self.assertEqual(len(self.printed), MOST_VALUES + 2)

    def test_forked(self) -> None:
        """In a process that was forked off meanwhile nothing waits, and what waited is not printed again."""
        self.emit(1)
        self.answer()
        self.emit(2)
        self.patch(metric_buffer, "_forks", 1)
        self.assertFalse(self.emit(3))
        self.gathering.end()
        self.assertEqual(self._values(), [1, 3])

    def test_size(self) -> None:
        """The most that can wait fits, in the longest of characters, into a frame beside the longest of messages."""
        self.emit(0)
        self.answer()
        text = "\U0001f600" * (LONGEST_TEXT - 1)
        self.assertFalse(self.gathering.keep("AA", "", 1, text, "GAUGE", "h", 5, ""))
        for _ in range(MOST_VALUES):
            self.assertTrue(self.gathering.keep("A", "", 1e-300 / 3, text, "HISTOGRAM", "h" * 64, 2**40, ""))
        failed = PredictFailed(2**63, 999, "\U0001f600" * MAX_MESSAGE, self.gathering.take(), "\U0001f600" * 1000)
        self.assertEqual(len(failed.metrics), MOST_VALUES)
        spec = worker_spec("m", "1", Path("m"), "h", 1, {}, {}, "python", {}, 1.0, max_response_size=0)
        self.assertLess(len(encode(failed)), longest_frame(spec))

    def test_ended(self) -> None:
        """After the end nothing waits."""
        self.emit(1)
        self.answer()
        self.emit(2)
        self.gathering.end()
        self.assertEqual(self._values(), [1, 2])
        self.emit(3)
        self.assertEqual(self._values(), [1, 2, 3])

    @given(STEPS)
    def test_nothing_is_lost(self, steps: list[str]) -> None:
        """Each value leaves once, in order on either way, and none waits at the end or behind a chunk."""
        self.setUp()
        sent: list[float] = []
        emitted: list[float] = []
        for number, step in enumerate(steps):
            if step in ("value", "odd"):
                # One that cannot be sent, and one that can.
                emitted.append(number + 0.5 if step == "value" else 2**70 + number * 2**40)
                self.emit(emitted[-1])
            elif step == "answer":
                sent += self.answer()
            elif step == "chunk":
                self.gathering.flush()
                self.assertEqual(sorted(self._values() + sent), sorted(map(float, emitted)))
            else:
                self.clock.advance(LONGEST_WAIT / 10 if step == "blink" else 1.0)
        self.gathering.end()
        found = self._values() + sent
        self.assertEqual(sorted(found), sorted(map(float, emitted)))
        order = [float(value) for value in emitted]
        for way in (self._values(), sent):
            self.assertEqual(way, [value for value in order if value in set(way)])
