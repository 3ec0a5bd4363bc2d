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


def keyring_on(shelf: Shelf, now: datetime = NOW) -> Keyring:
    return Keyring.create(shelf.save, Random(1).randbytes, HOUR, now)


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
        """Each key opens its own kind of door and is refused at the others as of the wrong kind."""
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

    @given(token_kinds(), presented_tokens(), aware_datetimes())
    def test_unknown(self, kind: TokenKind, presented: bytes, now: datetime) -> None:
        """What is no key is refused, without saying what it was."""
        self.assertEqual(keyring_on(Shelf()).check(kind, presented, now), Refused(Reason.UNKNOWN))

    def test_rotation(self) -> None:
        """After a rotation the new key opens for a new lifetime, the old one is unknown, the others stay."""
        shelf = Shelf()
        keyring = keyring_on(shelf)
        old = keyring.keys
        new = keyring.rotate(TokenKind.INFERENCE, NOW + HOUR)
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
        with self.assertRaises(OSError):
            keyring.rotate(TokenKind.MANAGEMENT, NOW)
        self.assertIs(keyring.keys, old)
        self.assertEqual(shelf.saved, [old])
        self.assertIsInstance(keyring.check(TokenKind.MANAGEMENT, old.management.secret.encode(), NOW), Granted)

    def test_api_key_stays(self) -> None:
        """The API key cannot be rotated."""
        keyring = keyring_on(Shelf())
        with self.assertRaises(ValueError):
            keyring.rotate(TokenKind.API, NOW)


class KeyringMachine(RuleBasedStateMachine):
    """Time passes, keys are rotated, disks fill up: what opens is what was saved last, in time."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        self.now = NOW
        self.dead: set[str] = set()

    @initialize(minutes=st.integers(1, 600))
    def create(self, minutes: int) -> None:
        self.lifetime = timedelta(minutes=minutes)
        self.keyring = Keyring.create(self.shelf.save, Random(2).randbytes, self.lifetime, self.now)
        self.born = {TokenKind.MANAGEMENT: self.now, TokenKind.INFERENCE: self.now}

    @rule(passed=st.timedeltas(timedelta(0), timedelta(hours=20)))
    def wait(self, passed: timedelta) -> None:
        self.now += passed

    @rule(kind=st.sampled_from([TokenKind.MANAGEMENT, TokenKind.INFERENCE]))
    def rotate(self, kind: TokenKind) -> None:
        old = self.keyring.keys.of(kind)
        try:
            self.keyring.rotate(kind, self.now)
        except OSError:
            assert self.shelf.full
        else:
            self.dead.add(old.secret)
            self.born[kind] = self.now

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
        for kind, born in self.born.items():
            token = self.keyring.keys.of(kind)
            assert self.opens(kind, token) == (self.now < born + self.lifetime)
        assert self.opens(TokenKind.API, self.keyring.keys.api)

    @invariant()
    def dead_stay_dead(self) -> None:
        for secret in self.dead:
            for kind in TokenKind:
                assert self.keyring.check(kind, secret.encode(), self.now) == Refused(Reason.UNKNOWN)


KeyringMachineTests = KeyringMachine.TestCase
