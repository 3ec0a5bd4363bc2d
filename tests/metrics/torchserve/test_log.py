# SPDX-License-Identifier: Apache-2.0
"""Tests for the lines of metrics in the log: when they are written, and which second they have."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.torchserve import log as metric_log
from twisted_serve.metrics.torchserve.definitions import Definition, Kind
from twisted_serve.metrics.torchserve.lines import decimal, lines_of_values
from twisted_serve.metrics.torchserve.log import GATHERING, MetricLog
from twisted_serve.metrics.torchserve.recorders import LogRecorder

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
NUMBERS = st.integers(0, 3) | st.floats()


class MetricLogTests(SynchronousTestCase):
    """Tests for `MetricLog`, and for what records into it."""

    def setUp(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin at the epoch of the tests, with a log that has nothing."""
        self.clock = Clock()
        self.set_by = 0.0
        self.events: list[LogEvent] = []
        log = Logger("n", observer=cast(ILogObserver, self.events.append))
        self.log = MetricLog(log, "N", self.clock, self.now, lines_of_values)
        definition = Definition("QueueTime", Kind.GAUGE, "ms", ("Level", "Hostname"))
        self.record = LogRecorder(definition, self.log.add).bind("Host", "h")

    def now(self) -> datetime:
        """Return the date by the test's clock, which an operator may have set."""
        return EPOCH + timedelta(seconds=self.clock.seconds() + self.set_by)

    def lines(self) -> list[str]:
        """Return what is logged so far."""
        return [line for event in self.events for line in event["lines"]]

    def counts(self) -> list[int]:
        """Return the number of lines of each event."""
        return [len(event["lines"]) for event in self.events]

    @given(st.lists(st.floats(0, 0.5) | NUMBERS.map(lambda number: (number,)) | st.just("end"), max_size=30))
    def test_one_by_one(self, said: list[float | tuple[float] | str]) -> None:
        """However much time passes between them: values have the lines that each has if it is written at once."""
        self.start()
        expected = []
        for step in said:
            if isinstance(step, tuple):
                self.record(step[0])
                moment = self.now().timestamp()
                # Where a second ends, it may be a microsecond late.
                seconds = {int(moment - 1e-5), int(moment + 1e-5)}
                start = f"QueueTime.ms:{decimal(step[0])}|#Level:Host|#hostname:h,timestamp:"
                expected.append({f"{start}{second}" for second in seconds})
            elif isinstance(step, str):
                self.log.close()
                self.assertEqual(len(self.lines()), len(expected))
            else:
                self.clock.advance(step)
        self.clock.advance(GATHERING)
        lines = self.lines()
        self.assertEqual(len(lines), len(expected))
        for line, right in zip(lines, expected, strict=True):
            self.assertIn(line, right)

    def test_gathering(self) -> None:
        """Many lines are one event; too many do not wait; after the end each goes at once."""
        self.patch(metric_log, "MOST_LINES", 3)
        for _ in range(5):
            self.record(1)
        self.assertEqual(self.counts(), [3])
        self.clock.advance(GATHERING)
        self.assertEqual(self.counts(), [3, 2])
        self.record(1)
        self.log.close()
        self.record(1)
        self.assertEqual((self.counts(), self.clock.getDelayedCalls()), ([3, 2, 1, 1], []))

    def test_set(self) -> None:
        """A clock that is set, either way, is believed with the next event."""
        for by in (3600.0, -7200.0):
            self.set_by += by
            self.record(1)
            self.clock.advance(GATHERING)
            second = int(self.now().timestamp())
            self.assertTrue(self.lines()[-1].endswith(f"timestamp:{second}"), self.lines())
