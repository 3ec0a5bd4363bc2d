# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.audit``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.audit import LINES_PER_PERIOD, PEERS, PERIOD, AuditLog
from twisted_serve.auth.gate import Denied
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.tokens import Token, TokenKind

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
UNKNOWN = Denied(TokenKind.INFERENCE, Reason.UNKNOWN)


class Recorded:
    """A journal, and what it has counted."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.rotations: Counter[str] = Counter()
        self.journal = AuditLog(
            self.clock.seconds,
            lambda kind, reason: self.refusals.update([(kind, reason)]),
            lambda kind: self.rotations.update([kind]),
        )

    def refuse(self, times: int = 1, peer: str = "10.0.0.1", stop: Denied = UNKNOWN) -> list[str]:
        """Have requests refused, and return the lines."""
        return [line for _level, line in logged(lambda: self._refuse(times, peer, stop))]

    def _refuse(self, times: int, peer: str, stop: Denied) -> None:
        for _ in range(times):
            self.journal.refused(stop, peer, "GET", "/predictions/m")


def logged(act: Callable[[], object]) -> list[tuple[LogLevel, str]]:
    """Return the lines which something logs."""
    with capturedLogs() as events:
        act()
    return [_line(event) for event in events]


def _line(event: LogEvent) -> tuple[LogLevel, str]:
    return event["log_level"], formatEvent(event)


class RefusalTests(SynchronousTestCase):
    """Tests for the record of refusals."""

    def setUp(self) -> None:
        self.recorded = Recorded()

    def test_line(self) -> None:
        """A line says who wanted what, why not, and with which key, by its public id."""
        [line] = self.recorded.refuse(stop=Denied(TokenKind.INFERENCE, Reason.WRONG_KIND, "12345678"))
        for part in ("GET /predictions/m", "10.0.0.1", "wrong kind", "inference", "12345678"):
            self.assertIn(part, line)
        self.assertNotIn("AUDIT", line)

    def test_audit(self) -> None:
        """Refusals at management and at the token API are marked for the audit."""
        for kind in (TokenKind.MANAGEMENT, TokenKind.API):
            [line] = self.recorded.refuse(peer=kind.value, stop=Denied(kind, Reason.MISSING))
            self.assertTrue(line.startswith("AUDIT "), line)

    def test_bounded(self) -> None:
        """All refusals are counted, but only some of each period are written down."""
        self.assertEqual(len(self.recorded.refuse(1000)), LINES_PER_PERIOD)
        self.assertEqual(self.recorded.refusals, {("inference", "unknown"): 1000})

    def test_summed_up(self) -> None:
        """When the period is over, the next line comes with the number of those that were kept back."""
        self.recorded.refuse(LINES_PER_PERIOD + 5)
        self.recorded.clock.advance(PERIOD)
        lines = self.recorded.refuse()
        self.assertEqual(len(lines), 2)
        self.assertIn("5 more requests from 10.0.0.1", lines[0])
        self.recorded.clock.advance(PERIOD)
        self.assertEqual(len(self.recorded.refuse()), 1)

    def test_peers_apart(self) -> None:
        """One peer's guesses do not hide another's."""
        self.recorded.refuse(1000, peer="10.0.0.1")
        self.assertEqual(len(self.recorded.refuse(peer="10.0.0.2")), 1)

    def test_memory(self) -> None:
        """However many addresses an attacker has, a bounded number is remembered, the newest."""
        self.recorded.refuse(LINES_PER_PERIOD, peer="first")
        for i in range(PEERS):
            self.recorded.refuse(peer=f"peer {i}")
        self.assertEqual(len(self.recorded.journal._peers), PEERS)
        self.assertEqual(len(self.recorded.refuse(peer="first")), 1)

    @given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, PERIOD * 1.5)), max_size=60))
    def test_never_more(self, refusals: list[tuple[int, float]]) -> None:
        """Whenever refusals come, two periods' lines take more than one period, and all refusals are counted."""
        recorded = Recorded()
        written: dict[int, list[float]] = {}
        for peer, wait in refusals:
            recorded.clock.advance(wait)
            lines = recorded.refuse(peer=str(peer))
            if any("Refused" in line for line in lines):
                written.setdefault(peer, []).append(recorded.clock.seconds())
        for moments in written.values():
            for first, later in zip(moments, moments[2 * LINES_PER_PERIOD :], strict=False):
                self.assertGreaterEqual(later - first, PERIOD)
        self.assertEqual(recorded.refusals.total(), len(refusals))


class RotationTests(SynchronousTestCase):
    """Tests for the record of rotations."""

    def setUp(self) -> None:
        self.recorded = Recorded()
        self.old = Token(TokenKind.MANAGEMENT, "a" * 32, NOW)
        self.new = Token(TokenKind.MANAGEMENT, "b" * 32, NOW + timedelta(hours=1))

    def test_rotated(self) -> None:
        """A rotation is an audit line with both public ids, who had it done and until when, and no key."""
        [(level, line)] = logged(lambda: self.recorded.journal.rotated(self.old, self.new, "10.0.0.1"))
        self.assertIs(level, LogLevel.info)
        for part in ("AUDIT", "10.0.0.1", self.old.public_id, self.new.public_id, "2026-01-01T01:00:00.000000Z"):
            self.assertIn(part, line)
        self.assertNotIn(self.old.secret, line)
        self.assertNotIn(self.new.secret, line)
        self.assertEqual(self.recorded.rotations, {"management": 1})

    def test_for_ever(self) -> None:
        """A key which never expires is said to do so."""
        new = Token(TokenKind.API, "c" * 32)
        [(_level, line)] = logged(lambda: self.recorded.journal.rotated(self.old, new, "x"))
        self.assertTrue(line.endswith("does not expire"), line)

    def test_failed(self) -> None:
        """A rotation which failed is an error, and is not counted as one."""
        error = OSError(28, "No space left on device")
        [(level, line)] = logged(lambda: self.recorded.journal.rotation_failed(TokenKind.INFERENCE, error))
        self.assertIs(level, LogLevel.error)
        self.assertIn("No space left", line)
        self.assertEqual(self.recorded.rotations, {})
