# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.expiry``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.expiry import INTERVAL, ExpiryChecker, seconds_left
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.tokens import Token, TokenKind

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
LIFETIME = timedelta(minutes=60)
WARNING = timedelta(minutes=5)

Rotate = Callable[[TokenKind], Token]


class Watched:
    """A keyring with a checker, in a time of their own."""

    def __init__(self, rotate: bool = False, broken: Exception | None = None) -> None:
        self.clock = Clock()
        self.broken = broken
        self.rotated: list[TokenKind] = []
        numbers = iter(range(1, 100000))
        self.keyring = Keyring.create(
            lambda keys: None, lambda size: next(numbers).to_bytes(size, "big"), LIFETIME, self.now()
        )
        self.checker = ExpiryChecker(self.keyring, self.clock, self.now, WARNING, self.rotate if rotate else None)

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    def rotate(self, kind: TokenKind) -> Token:
        if self.broken is not None:
            raise self.broken
        self.rotated.append(kind)
        return self.keyring.rotate(kind, self.now())

    def advance(self, seconds: float) -> list[str]:
        """Let time pass a second at a time, and return the lines."""
        with capturedLogs() as events:
            while seconds > 0:
                self.clock.advance(min(INTERVAL, seconds))
                seconds -= INTERVAL
        return [str(formatEvent(event)) for event in events if event["log_level"] >= LogLevel.warn]


class SecondsLeftTests(SynchronousTestCase):
    """Tests for how long a token has."""

    def test_seconds_left(self) -> None:
        """It counts down to 0 and stays there; a token which never expires has for ever."""
        token = Token(TokenKind.INFERENCE, "a" * 32, NOW)
        self.assertEqual(seconds_left(token, NOW - timedelta(seconds=90)), 90)
        self.assertEqual(seconds_left(token, NOW), 0)
        self.assertEqual(seconds_left(token, NOW + timedelta(days=1)), 0)
        self.assertEqual(seconds_left(Token(TokenKind.API, "a" * 32), NOW), float("inf"))


class CheckerTests(SynchronousTestCase):
    """Tests for the service which watches."""

    def watched(self, rotate: bool = False, broken: Exception | None = None) -> Watched:
        watched = Watched(rotate, broken)
        watched.checker.startService()
        self.addCleanup(watched.checker.stopService)
        return watched

    def test_lines(self) -> None:
        """Each token is warned about once, and once said to have expired; the API token never."""
        watched = self.watched()
        self.assertEqual(watched.advance((LIFETIME - WARNING).total_seconds() - 1), [])
        warned = watched.advance(1)
        self.assertEqual(len(warned), 2)
        for line, token in zip(warned, (watched.keyring.keys.management, watched.keyring.keys.inference), strict=True):
            self.assertIn(f"The {token.kind.value} token (key {token.public_id}) expires in 300 s", line)
            self.assertIn("2026-01-01T01:00:00.000000Z", line)
            self.assertNotIn(token.secret, line)
        self.assertEqual(watched.advance(WARNING.total_seconds() - 1), [])
        self.assertEqual([line.rpartition(" ")[2] for line in watched.advance(1)], ["expired", "expired"])
        self.assertEqual(watched.advance(600), [])

    def test_after_rotation(self) -> None:
        """What was said of a key is forgotten with it: its successor is warned about in its own time."""
        watched = self.watched()
        watched.advance((LIFETIME - WARNING).total_seconds())
        watched.keyring.rotate(TokenKind.INFERENCE, watched.now())
        self.assertEqual(len(watched.advance(WARNING.total_seconds())), 1)
        lines = watched.advance((LIFETIME - WARNING).total_seconds())
        self.assertEqual(len(lines), 2)
        live = {token.public_id for token in watched.keyring.keys if token.expires is not None}
        self.assertEqual(watched.checker._warned, live)

    def test_rotates(self) -> None:
        """With a way to rotate, what expires is replaced at the next look, and opens again."""
        watched = self.watched(rotate=True)
        watched.advance(LIFETIME.total_seconds())
        self.assertEqual(watched.rotated, [TokenKind.MANAGEMENT, TokenKind.INFERENCE])
        for token in (watched.keyring.keys.management, watched.keyring.keys.inference):
            self.assertEqual(token.expires, watched.now() + LIFETIME)

    def test_tries_again(self) -> None:
        """A rotation which fails is tried again after a while until it succeeds, and the checker goes on."""
        watched = self.watched(rotate=True, broken=OSError(28, "No space left on device"))
        self.assertEqual(len(watched.advance(LIFETIME.total_seconds() + 10)), 4)
        self.assertEqual(watched.rotated, [])
        watched.broken = None
        watched.advance(10)
        self.assertEqual(watched.rotated, [])
        watched.advance(10)
        self.assertEqual(watched.rotated, [TokenKind.MANAGEMENT, TokenKind.INFERENCE])

    def test_defect(self) -> None:
        """A defect in replacing is in the log, not each second, and the watching goes on."""
        watched = self.watched(rotate=True, broken=ZeroDivisionError())
        watched.advance(LIFETIME.total_seconds() + 10)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        watched.broken = None
        watched.advance(20)
        self.assertEqual(watched.rotated, [TokenKind.MANAGEMENT, TokenKind.INFERENCE])

    def test_stop(self) -> None:
        """When it is stopped no timer is left; it can be stopped twice, and be started again."""
        watched = self.watched()
        watched.checker.stopService()
        watched.checker.stopService()
        self.assertEqual(watched.clock.getDelayedCalls(), [])
        watched.checker.startService()
        self.assertEqual(len(watched.clock.getDelayedCalls()), 1)

    @given(st.lists(st.integers(1, 2000), max_size=15))
    def test_always_a_live_key(self, waits: list[int]) -> None:
        """With rotation on, no key is expired for longer than the time between two looks."""
        watched = Watched(rotate=True)
        watched.checker.startService()
        for wait in waits:
            watched.advance(wait)
            for token in (watched.keyring.keys.management, watched.keyring.keys.inference):
                self.assertFalse(token.expired(watched.now() - timedelta(seconds=INTERVAL)))
        watched.checker.stopService()
