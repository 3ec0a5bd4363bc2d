# SPDX-License-Identifier: Apache-2.0
"""Tests for the spelling of moments and durations."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.words import spell_duration, spell_moment

START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


class WordsTests(SynchronousTestCase):
    """Durations and moments in failures."""

    def test_durations(self) -> None:
        """Every part that is not zero is spelled; the sign is not."""
        for words, duration in (
            ("0 s", timedelta(0)),
            ("1 µs", timedelta(microseconds=1)),
            ("1 ms 1 µs", timedelta(microseconds=-1001)),
            ("59 min 59 s", timedelta(seconds=3599)),
            ("1 d 1 h 1 min 1 s", timedelta(days=1, seconds=3661)),
            ("400 d", timedelta(days=400)),
        ):
            self.assertEqual(spell_duration(duration), words)

    def test_moments(self) -> None:
        """Microseconds and the date are spelled when they matter."""
        self.assertEqual(spell_moment(START, START), "12:00:00")
        later = START + timedelta(minutes=5, microseconds=1)
        self.assertEqual(spell_moment(later, START), "12:05:00.000001")
        self.assertEqual(spell_moment(later - timedelta(days=1), START), "2025-12-31 12:05:00.000001")
