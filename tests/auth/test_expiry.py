# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.expiry``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.expiry import INTERVAL, ExpiryChecker
from twisted_serve.auth.keyring import Keyring, Reason, Refused
from twisted_serve.auth.tokens import KeySet, Token, TokenKind

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
LIFETIME = timedelta(minutes=60)
WARNING = timedelta(minutes=5)


class Watched:
    """A keyring with a checker, in a time of their own."""

    def __init__(self, rotate: bool = False, broken: Exception | None = None) -> None:
        self.clock = Clock()
        self.set_by = timedelta(0)
        self.broken = broken
        self.rotated: list[TokenKind] = []
        numbers = iter(range(1, 100000))
        self.keyring = Keyring.create(
            lambda keys: None,
            lambda size: next(numbers).to_bytes(size, "big"),
            LIFETIME,
            self.now(),
            self.clock.seconds,
            self.save,
        )
        self.slow: list[Deferred[None]] | None = None
        self.checker = ExpiryChecker(self.keyring, self.clock, self.now, WARNING, self.rotate if rotate else None)

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds()) + self.set_by

    def save(self, save: Callable[[KeySet], None], keys: KeySet) -> Deferred[None]:
        """Save at once, or when the test says so."""
        if self.slow is None:
            return maybeDeferred(save, keys)
        self.slow.append(Deferred())
        return self.slow[-1]

    def rotate(self, kind: TokenKind) -> Deferred[Token]:
        if self.broken is not None:
            return fail(self.broken)
        self.rotated.append(kind)
        return self.keyring.rotate(kind, self.now()).addCallback(lambda tokens: tokens.new)

    def advance(self, seconds: float) -> list[str]:
        """Let time pass a second at a time, and return the lines."""
        with capturedLogs() as events:
            while seconds > 0:
                self.clock.advance(min(INTERVAL, seconds))
                seconds -= INTERVAL
        return [str(formatEvent(event)) for event in events if event["log_level"] >= LogLevel.warn]


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

    def test_date_set_back(self) -> None:
        """When the date is set back a key is said to expire after its lifetime, not at its date, and once."""
        watched = self.watched(rotate=True)
        watched.advance(60)
        watched.set_by = timedelta(hours=-5)
        lines = watched.advance((LIFETIME - WARNING).total_seconds() - 60)
        self.assertEqual(len([line for line in lines if "expires in 300 s" in line]), 2)
        watched.advance(WARNING.total_seconds())
        self.assertEqual(watched.rotated, [TokenKind.MANAGEMENT, TokenKind.INFERENCE])

    def test_date_seen_once(self) -> None:
        """A date beyond a key's expiry ends it, seen at one look and taken back before the next request."""
        watched = self.watched()
        watched.set_by = timedelta(hours=2)
        self.assertEqual(len(watched.advance(1)), 2)
        watched.set_by = timedelta(0)
        key = watched.keyring.keys.inference
        self.assertEqual(
            watched.keyring.check(TokenKind.INFERENCE, key.encoded, watched.now()),
            Refused(Reason.EXPIRED, key.public_id),
        )

    def test_tries_again_by_the_steady_clock(self) -> None:
        """How long it waits after a failure has nothing to do with the date."""
        watched = self.watched(rotate=True, broken=OSError(28, "No space left on device"))
        watched.advance(LIFETIME.total_seconds() + 1)
        watched.set_by = timedelta(hours=-5)
        watched.broken = None
        watched.advance(30)
        self.assertEqual(watched.rotated, [TokenKind.MANAGEMENT, TokenKind.INFERENCE])

    def test_slow_disk(self) -> None:
        """While a replacement is being written no other is begun."""
        watched = self.watched(rotate=True)
        watched.slow = []
        watched.advance(LIFETIME.total_seconds() + 300)
        self.assertEqual(watched.rotated, [TokenKind.MANAGEMENT, TokenKind.INFERENCE])
        while watched.slow:
            watched.slow.pop(0).callback(None)
        watched.advance(300)
        self.assertEqual(len(watched.rotated), 2)

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
