# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.live`` and for the gate with named keys.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from hashlib import sha256

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.gate import Allowed, Authorizer, Denied
from twisted_serve.auth.keyring import Keyring, Reason, Refused
from twisted_serve.auth.named.limits import Limited
from twisted_serve.auth.named.live import LiveKey, NamedKeys
from twisted_serve.auth.named.records import Former, NamedKey
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.needs import Need
from twisted_serve.auth.refusals import refusal_error
from twisted_serve.auth.targets import Target, parse_target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import InsufficientScope, InvalidKey
from twisted_serve.interfaces import Operation

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
INSTANT = timedelta(microseconds=1)
SECRET = b"tsk_" + 38 * b"a"
OTHER = b"tsk_" + 38 * b"b"


def digest(secret: bytes) -> str:
    return sha256(secret).hexdigest()


KEY = NamedKey("mobile", digest(SECRET), KeyScopes(("inference:resnet*",)), NOW)


class LiveTests(SynchronousTestCase):
    """Tests for finding named keys."""

    def setUp(self) -> None:
        self.keys = NamedKeys(lambda: 0.0)

    def keep(self, *records: NamedKey) -> None:
        self.keys.use(self.keys.indexed(records))

    def reason(self, secret: bytes, now: datetime = NOW) -> Reason | None:
        found = self.keys.check(secret, now)
        return found.reason if isinstance(found, Refused) else None

    def test_secret(self) -> None:
        """A key is found by its whole secret, and by nothing near to it."""
        self.keep(KEY)
        self.assertIsNone(self.reason(SECRET))
        for wrong in (OTHER, SECRET[:-1], SECRET + b"a", SECRET.upper(), b"tsk_", digest(SECRET).encode()):
            self.assertIs(self.reason(wrong), Reason.UNKNOWN)

    def test_revoked(self) -> None:
        """A key that is no longer in the store is unknown at the next check, also for a stream that has it."""
        self.keep(KEY)
        held = self.keys.check(SECRET, NOW)
        assert isinstance(held, LiveKey)
        self.keep()
        self.assertIs(self.reason(SECRET), Reason.UNKNOWN)
        self.assertEqual(self.keys.check_again(held, NOW), Refused(Reason.UNKNOWN))

    def test_disabled(self) -> None:
        """A disabled key is refused, and good again when it is enabled."""
        for disabled, reason in ((False, None), (True, Reason.DISABLED), (False, None)):
            self.keep(evolve(KEY, disabled=disabled))
            self.assertIs(self.reason(SECRET), reason)

    def test_expiry(self) -> None:
        """A key ends at its date, for good even if the clock is set back, until its date is changed."""
        end = NOW + timedelta(hours=1)
        self.keep(evolve(KEY, expires=end))
        self.assertIsNone(self.reason(SECRET, end - INSTANT))
        self.assertIs(self.reason(SECRET, end), Reason.EXPIRED)
        self.assertIs(self.reason(SECRET, NOW), Reason.EXPIRED)
        # Read again from the file: an equal record, but not the same.
        self.keep(evolve(KEY, expires=end))
        self.assertIs(self.reason(SECRET, NOW), Reason.EXPIRED)
        self.keep(evolve(KEY, expires=end + INSTANT))
        self.assertIsNone(self.reason(SECRET, end))

    def test_rotation(self) -> None:
        """A replaced secret is good until its overlap ends, and the new one beyond."""
        until = NOW + timedelta(seconds=5)
        self.keep(evolve(KEY, sha256=digest(OTHER), former=Former(digest(SECRET), until)))
        self.assertIsNone(self.reason(SECRET, until - INSTANT))
        self.assertIs(self.reason(SECRET, until), Reason.EXPIRED)
        self.assertIsNone(self.reason(OTHER, until))
        # Also if the clock is set back.
        self.assertIs(self.reason(SECRET, NOW), Reason.EXPIRED)

    def test_state(self) -> None:
        """What is in progress stays counted when a key changes; a new key of another name counts anew."""
        self.keep(evolve(KEY, concurrent=1))
        live = self.keys.index.by_name["mobile"]
        live.state.usage.enter()
        self.keep(evolve(KEY, concurrent=1, disabled=True), evolve(KEY, name="web", sha256=digest(OTHER)))
        self.assertIsInstance(self.keys.index.by_name["mobile"].state.usage.enter(), Limited)
        self.assertEqual(self.keys.index.by_name["web"].state.usage.in_flight, 0)
        self.keep(evolve(KEY, concurrent=2))
        self.assertNotIsInstance(self.keys.index.by_name["mobile"].state.usage.enter(), Limited)

    def test_unchanged(self) -> None:
        """Records that are the same objects keep their entries: a change of one key is cheap among thousands."""
        other = evolve(KEY, name="web", sha256=digest(OTHER))
        self.keep(KEY, other)
        self.assertEqual(len(self.keys.index.changed), 2)
        before = self.keys.index.by_name["web"]
        self.keep(evolve(KEY, disabled=True), other)
        self.assertEqual([live.record.name for live in self.keys.index.changed], ["mobile"])
        self.assertIs(self.keys.index.by_name["web"], before)

    def test_last_used(self) -> None:
        """The last use is the last one that was accepted."""
        self.keep(evolve(KEY, expires=NOW + INSTANT))
        state = self.keys.index.by_name["mobile"].state
        self.assertIsNone(state.last_used)
        self.reason(SECRET)
        self.reason(SECRET, NOW + INSTANT)
        self.assertEqual(state.last_used, NOW)


class NamedGateTests(SynchronousTestCase):
    """Tests for the gate with named keys."""

    def setUp(self) -> None:
        self.keys = NamedKeys(lambda: 0.0)
        self.keys.use(self.keys.indexed([KEY]))
        numbers = iter(range(1, 1000))
        self.keyring = Keyring.create(
            lambda keys: None, lambda size: next(numbers).to_bytes(size, "big"), timedelta(hours=1), NOW, lambda: 0.0
        )
        self.gate = Authorizer(self.need, self.keyring, lambda: NOW, self.keys)

    @staticmethod
    def need(method: bytes, target: Target) -> Need:
        """Need to predict with the model in the path, or to list models."""
        if target.first == "models":
            return Need(Operation.LIST_MODELS, TokenKind.MANAGEMENT)
        return Need(Operation.PREDICT, TokenKind.INFERENCE, target.first)

    def ask(self, path: bytes, secret: bytes) -> Allowed | Denied:
        return self.gate.ask(b"GET", parse_target(path), (b"Bearer " + secret,))

    def test_allowed(self) -> None:
        """The verdict has the key, and what it was checked for."""
        verdict = self.ask(b"/resnet", SECRET)
        assert isinstance(verdict, Allowed)
        assert verdict.key is not None
        self.assertIs(verdict.key.record, KEY)
        self.assertEqual(verdict.need, Need(Operation.PREDICT, TokenKind.INFERENCE, "resnet"))

    def test_scope(self) -> None:
        """A good key without the scope is told so, by its name; the reason why a key is not good is not told."""
        for path in (b"/bert", b"/models"):
            denied = self.ask(path, SECRET)
            assert isinstance(denied, Denied)
            self.assertEqual((denied.reason, denied.name, denied.key_id), (Reason.SCOPE, "mobile", KEY.id))
            error = refusal_error(denied)
            self.assertIsInstance(error, InsufficientScope)
            self.assertIn("mobile", error.message)
            self.assertNotIn("bert", error.message)
        denied = self.ask(b"/resnet", OTHER)
        assert isinstance(denied, Denied)
        self.assertIsInstance(refusal_error(denied), InvalidKey)

    def test_three_keys(self) -> None:
        """The three keys open what they did."""
        self.assertEqual(self.ask(b"/bert", self.keyring.keys.inference.encoded), Allowed(TokenKind.INFERENCE))

    def test_same_beginning(self) -> None:
        """One of the three keys that begins like a named key opens what it opens."""
        secret = SECRET.decode().replace("a", "c")
        keys = evolve(self.keyring.keys, inference=evolve(self.keyring.keys.inference, secret=secret))
        keyring = Keyring(keys, lambda keys: None, lambda size: b"", timedelta(hours=1), lambda: 0.0)
        gate = Authorizer(self.need, keyring, lambda: NOW, self.keys)
        verdict = gate.ask(b"GET", parse_target(b"/bert"), (f"Bearer {secret}".encode(),))
        self.assertEqual(verdict, Allowed(TokenKind.INFERENCE))

    def test_no_store(self) -> None:
        """Without named keys a secret that looks like one is any wrong key."""
        gate = Authorizer(self.need, self.keyring, lambda: NOW)
        verdict = gate.ask(b"GET", parse_target(b"/resnet"), (b"Bearer " + SECRET,))
        self.assertEqual(verdict, Denied(TokenKind.INFERENCE, Reason.UNKNOWN))

    def test_again(self) -> None:
        """What was allowed is asked again with the key as it is now."""
        verdict = self.ask(b"/resnet", SECRET)
        assert isinstance(verdict, Allowed)
        self.assertIsInstance(self.gate.ask_again(verdict), Allowed)
        self.keys.use(self.keys.indexed([evolve(KEY, scopes=KeyScopes(("inference:bert",)))]))
        again = self.gate.ask_again(verdict)
        assert isinstance(again, Denied)
        self.assertIs(again.reason, Reason.SCOPE)
        plain = self.ask(b"/bert", self.keyring.keys.inference.encoded)
        assert isinstance(plain, Allowed)
        self.assertIs(self.gate.ask_again(plain), plain)
