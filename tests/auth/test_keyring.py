# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.keyring``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.keyring import Granted, Keyring, Reason, Refused
from twisted_serve.auth.tokens import KeySet, Token, TokenKind, public_id
from twisted_serve.testing.strategies.tokens import aware_datetimes, presented_tokens, token_kinds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


class Shelf:
    """Somewhere to save keys, which can be full."""

    def __init__(self) -> None:
        self.saved: list[KeySet] = []
        self.full = False

    def save(self, keys: KeySet) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.saved.append(keys)


def keyring_on(shelf: Shelf, now: datetime = NOW, clock: Clock | None = None) -> Keyring:
    return Keyring.create(shelf.save, Random(1).randbytes, HOUR, now, (clock or Clock()).seconds)


class KeyringTests(SynchronousTestCase):
    """Tests for checking and rotating."""

    def test_created_keys_are_saved(self) -> None:
        """The keys of a new keyring are the ones that were saved."""
        shelf = Shelf()
        keyring = keyring_on(shelf)
        self.assertEqual(shelf.saved, [keyring.keys])

    def test_cannot_be_saved(self) -> None:
        """There is no keyring whose keys could not be saved."""
        shelf = Shelf()
        shelf.full = True
        with self.assertRaises(OSError):
            keyring_on(shelf)

    def test_matrix(self) -> None:
        """Each key grants its own kind, and is refused for the others as of the wrong kind."""
        keyring = keyring_on(Shelf())
        for token in keyring.keys:
            for kind in TokenKind:
                verdict = keyring.check(kind, token.secret.encode(), NOW)
                if kind is token.kind:
                    self.assertEqual(verdict, Granted(token.public_id))
                else:
                    self.assertEqual(verdict, Refused(Reason.WRONG_KIND, token.public_id))

    def test_expired(self) -> None:
        """A key is refused as expired at the instant of its expiry; the API key is not."""
        keyring = keyring_on(Shelf())
        management = keyring.keys.management
        self.assertEqual(
            keyring.check(TokenKind.MANAGEMENT, management.secret.encode(), NOW + HOUR),
            Refused(Reason.EXPIRED, management.public_id),
        )
        api = keyring.keys.api.secret.encode()
        self.assertIsInstance(keyring.check(TokenKind.API, api, NOW + 1000 * HOUR), Granted)

    def test_lifetime(self) -> None:
        """A key ends after its lifetime, whatever the date says; the API key does not."""
        clock = Clock()
        keyring = keyring_on(Shelf(), clock=clock)
        keys = keyring.keys
        clock.advance(HOUR.total_seconds() - 0.001)
        self.assertIsInstance(keyring.check(TokenKind.INFERENCE, keys.inference.encoded, NOW - HOUR), Granted)
        self.assertAlmostEqual(keyring.seconds_left(TokenKind.INFERENCE, NOW - HOUR), 0.001)
        clock.advance(0.001)
        self.assertEqual(
            keyring.check(TokenKind.INFERENCE, keys.inference.encoded, NOW - HOUR),
            Refused(Reason.EXPIRED, keys.inference.public_id),
        )
        self.assertEqual(keyring.seconds_left(TokenKind.MANAGEMENT, NOW - HOUR), 0)
        self.assertIsInstance(keyring.check(TokenKind.API, keys.api.encoded, NOW), Granted)

    def test_once_expired(self) -> None:
        """A key which was seen to be expired stays so when the date is set back."""
        for look in (
            lambda keyring, token, now: keyring.check(token.kind, token.encoded, now),
            lambda keyring, token, now: keyring.seconds_left(token.kind, now),
        ):
            keyring = keyring_on(Shelf())
            token = keyring.keys.management
            look(keyring, token, NOW + HOUR)
            self.assertEqual(keyring.check(token.kind, token.encoded, NOW), Refused(Reason.EXPIRED, token.public_id))
            self.assertEqual(keyring.seconds_left(token.kind, NOW), 0)

    def test_seconds_left(self) -> None:
        """They count down to 0 and stay there; a token which never expires has for ever."""
        clock = Clock()
        keyring = keyring_on(Shelf(), clock=clock)
        self.assertEqual(keyring.seconds_left(TokenKind.INFERENCE, NOW + timedelta(minutes=30)), 1800)
        clock.advance(2400)
        self.assertEqual(keyring.seconds_left(TokenKind.INFERENCE, NOW + timedelta(minutes=30)), 1200)
        self.assertEqual(keyring.seconds_left(TokenKind.INFERENCE, NOW + timedelta(days=1)), 0)
        self.assertEqual(keyring.seconds_left(TokenKind.API, NOW), float("inf"))

    @given(token_kinds(), presented_tokens(), aware_datetimes())
    def test_unknown(self, kind: TokenKind, presented: bytes, now: datetime) -> None:
        """What is no key is refused, without saying what it was."""
        self.assertEqual(keyring_on(Shelf()).check(kind, presented, now), Refused(Reason.UNKNOWN))

    def test_rotation(self) -> None:
        """After a rotation the new key opens for a new lifetime, the old one is unknown, the others stay."""
        shelf = Shelf()
        keyring = keyring_on(shelf)
        old = keyring.keys
        new = self.successResultOf(keyring.rotate(TokenKind.INFERENCE, NOW + HOUR)).new
        self.assertEqual(new.expires, NOW + 2 * HOUR)
        self.assertEqual(
            keyring.check(TokenKind.INFERENCE, new.secret.encode(), NOW + HOUR), Granted(public_id(new.secret.encode()))
        )
        self.assertEqual(
            keyring.check(TokenKind.INFERENCE, old.inference.secret.encode(), NOW), Refused(Reason.UNKNOWN)
        )
        self.assertEqual(keyring.keys, old.replacing(new))
        self.assertEqual(shelf.saved[-1], keyring.keys)

    def test_failed_rotation(self) -> None:
        """When the new key cannot be saved, the old one goes on opening."""
        shelf = Shelf()
        keyring = keyring_on(shelf)
        old = keyring.keys
        shelf.full = True
        self.failureResultOf(keyring.rotate(TokenKind.MANAGEMENT, NOW), OSError)
        self.assertIs(keyring.keys, old)
        self.assertEqual(shelf.saved, [old])
        self.assertIsInstance(keyring.check(TokenKind.MANAGEMENT, old.management.secret.encode(), NOW), Granted)

    def test_api_key_stays(self) -> None:
        """The API key cannot be rotated."""
        keyring = keyring_on(Shelf())
        with self.assertRaises(ValueError):
            keyring.rotate(TokenKind.API, NOW)


class KeyringMachine(RuleBasedStateMachine):
    """Time passes, the date is set, keys are rotated, disks fill up: what opens is what was saved last, in time."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        self.clock = Clock()
        self.set_by = timedelta(0)
        self.dead: set[str] = set()
        self.ended: set[str] = set()

    @property
    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds()) + self.set_by

    @initialize(minutes=st.integers(1, 600))
    def create(self, minutes: int) -> None:
        self.lifetime = timedelta(minutes=minutes)
        self.keyring = Keyring.create(self.shelf.save, Random(2).randbytes, self.lifetime, self.now, self.clock.seconds)
        self.born = {kind: (self.now, self.clock.seconds()) for kind in (TokenKind.MANAGEMENT, TokenKind.INFERENCE)}

    @rule(passed=st.integers(0, 20 * 3600))
    def wait(self, passed: int) -> None:
        self.clock.advance(passed)

    @rule(passed=st.timedeltas(timedelta(hours=-20), timedelta(hours=20)))
    def set_date(self, passed: timedelta) -> None:
        self.set_by += passed

    @rule(kind=st.sampled_from([TokenKind.MANAGEMENT, TokenKind.INFERENCE]))
    def rotate(self, kind: TokenKind) -> None:
        old = self.keyring.keys.of(kind)
        failed: list[object] = []
        self.keyring.rotate(kind, self.now).addErrback(failed.append)
        assert bool(failed) == self.shelf.full
        if not failed:
            self.dead.add(old.secret)
            self.born[kind] = self.now, self.clock.seconds()

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.shelf.full = full

    def opens(self, kind: TokenKind, token: Token) -> bool:
        return isinstance(self.keyring.check(kind, token.secret.encode(), self.now), Granted)

    @invariant()
    def saved_is_live(self) -> None:
        assert self.shelf.saved[-1] == self.keyring.keys

    @invariant()
    def open_in_time(self) -> None:
        """A key dies at its date or after its lifetime, whichever is seen first, and never opens again."""
        for kind, (date, seconds) in self.born.items():
            token = self.keyring.keys.of(kind)
            if self.now >= date + self.lifetime or self.clock.seconds() >= seconds + self.lifetime.total_seconds():
                self.ended.add(token.secret)
            assert self.opens(kind, token) == (token.secret not in self.ended)
            assert (self.keyring.seconds_left(kind, self.now) > 0) == (token.secret not in self.ended)
        assert self.opens(TokenKind.API, self.keyring.keys.api)

    @invariant()
    def dead_stay_dead(self) -> None:
        for secret in self.dead:
            for kind in TokenKind:
                assert self.keyring.check(kind, secret.encode(), self.now) == Refused(Reason.UNKNOWN)


KeyringMachineTests = KeyringMachine.TestCase
