# SPDX-License-Identifier: Apache-2.0
"""Tests for the gathering of events."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.logs.coalescing import Coalescing, one_by_one
from twisted_serve.logs.events import READY


def event(logger: str, thread: str, line: str, moment: float, status: int) -> LogEvent:
    """Make an event of one line."""
    return {
        "log_level": LogLevel.info,
        "log_format": READY,
        "log_time": moment,
        "logger_name": logger,
        "thread_name": thread,
        "line": line,
        "fields": {"status": status},
    }


class GatheringTests(SynchronousTestCase):
    """Tests for `Coalescing`."""

    @given(
        st.lists(
            st.builds(
                event,
                st.sampled_from(["ACCESS_LOG", "MODEL_LOG"]),
                st.sampled_from(["main", "W-9000-m_1.0-stdout"]),
                st.text(max_size=5),
                st.floats(0, 2e9),
                st.integers(),
            )
        )
    )
    def test_same(self, said: list[LogEvent]) -> None:
        """What is given says what was taken, and in which order: an event for each logger and thread."""

        gathering = Coalescing()
        for each in said:
            gathering.add(each["logger_name"], each)
        self.assertEqual(gathering.size, sum(len(each["line"]) + 1 for each in said))
        given = gathering.take()
        found = sorted(chain.from_iterable(map(one_by_one, given)), key=itemgetter("positions"))
        self.assertEqual(found, [{**each, "positions": [number]} for number, each in enumerate(said)])
        self.assertEqual([each["line"] for each in given], ["\n".join(each["lines"]) for each in given])
        self.assertEqual(len(given), len({(each["logger_name"], each["thread_name"]) for each in said}))
        self.assertEqual((gathering.size, gathering.take()), (0, []))

    def test_usual(self) -> None:
        """An event need not say its thread, nor have fields."""
        gathering = Coalescing()
        gathering.add("ACCESS_LOG", {"log_time": 1.0, "line": "a"})
        [given] = gathering.take()
        self.assertEqual(
            list(one_by_one(given)), [{**event("ACCESS_LOG", "main", "a", 1.0, 0), "fields": {}, "positions": [0]}]
        )
