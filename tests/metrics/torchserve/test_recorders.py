# SPDX-License-Identifier: Apache-2.0
"""Tests for where values go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.torchserve.definitions import Definition, Kind
from twisted_serve.metrics.torchserve.lines import decimal
from twisted_serve.metrics.torchserve.recorders import LogRecorder

values = st.integers(0, 3) | st.sampled_from([0.0, -0.0, 1.0]) | st.floats()


class LogRecorderTests(SynchronousTestCase):
    """Tests for `LogRecorder`."""

    @given(st.lists(st.tuples(values, st.integers(5, 6))))
    def test_lines(self, said: list[tuple[float, int]]) -> None:
        """Each value has its line, with the second in which it was recorded, whatever was recorded before."""
        moment = 0
        lines: list[str] = []
        definition = Definition("QueueTime", Kind.GAUGE, "Milliseconds", ("Level", "Hostname"))
        record = LogRecorder(definition, lambda: moment, lines.append).bind("Host", "h")
        for value, moment in said:  # noqa: B007 - the recorder asks for it
            record(value)
        self.assertEqual(
            lines,
            [
                f"QueueTime.Milliseconds:{decimal(value)}|#Level:Host|#hostname:h,timestamp:{second}"
                for value, second in said
            ],
        )
