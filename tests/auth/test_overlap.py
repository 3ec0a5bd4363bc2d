# SPDX-License-Identifier: Apache-2.0
"""Tests for keys that are accepted for a while after their replacement (``token_overlap_sec``)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.expiry import INTERVAL, replaced_ahead
from twisted_serve.auth.keyring import MOST_FORMER, Granted, Keyring, Reason, Refused
from twisted_serve.auth.tokens import KeySet, Token, TokenKind
from twisted_serve.testing.server import MemoryServer

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
ROTATED = st.sampled_from([TokenKind.MANAGEMENT, TokenKind.INFERENCE])


def nowhere(keys: KeySet) -> None:
    """Save keys nowhere."""


class _Model:
    """A replaced key as it should be: its last date and second, and whether it was seen to have ended."""

    def __init__(self, token: Token, date: datetime, second: float) -> None:
        self.token = token
        self.date = date
        self.second = second
        self.ended = False

    def open(self, now: datetime, seconds: float) -> bool:
        self.ended = self.ended or now >= self.date or seconds >= self.second
        return not self.ended


class OverlapMachine(RuleBasedStateMachine):
    """Time passes, the date is set, keys are replaced: a replaced key opens for the overlap or its life, no longer."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.set_by = timedelta(0)
        self.former: dict[TokenKind, list[_Model]] = {TokenKind.MANAGEMENT: [], TokenKind.INFERENCE: []}
        self.forgotten: list[Token] = []

    @property
    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds()) + self.set_by

    @initialize(lifetime=st.integers(2, 600), overlap=st.sampled_from([0, 1, 2, 30, 599, 601, 10_000]))
    def create(self, lifetime: int, overlap: int) -> None:
        self.lifetime, self.overlap = lifetime, overlap
        self.keyring = Keyring.create(
            nowhere,
            Random(3).randbytes,
            timedelta(seconds=lifetime),
            self.now,
            self.clock.seconds,
            overlap=timedelta(seconds=overlap),
        )
        life = _Model(self.keyring.keys.management, self.now + timedelta(seconds=lifetime), lifetime)
        self.live = dict.fromkeys(self.former, life)

    @rule(passed=st.sampled_from([0, 1, 2, 29, 30, 31, 300, 599, 600]))
    def wait(self, passed: int) -> None:
        self.clock.advance(passed)

    @rule(passed=st.sampled_from([-601, -30, -1, 1, 30, 601]))
    def set_date(self, passed: int) -> None:
        self.set_by += timedelta(seconds=passed)

    @rule(kind=ROTATED)
    def rotate(self, kind: TokenKind) -> None:
        old, life = self.keyring.keys.of(kind), self.live[kind]
        was_open = life.open(self.now, self.clock.seconds())
        done: list[object] = []
        self.keyring.rotate(kind, self.now).addCallback(lambda it: done.append(it.until))
        end = self.now + timedelta(seconds=self.overlap), self.clock.seconds() + self.overlap
        self.live[kind] = _Model(
            self.keyring.keys.of(kind),
            self.now + timedelta(seconds=self.lifetime),
            self.clock.seconds() + self.lifetime,
        )
        if not was_open or not self.overlap:
            assert done == [None]
            self.forgotten.append(old)
            return
        former = _Model(old, min(end[0], life.date), min(end[1], life.second))
        assert done == [former.date]
        self.former[kind].append(former)
        if len(self.former[kind]) > MOST_FORMER:
            self.forgotten.append(self.former[kind].pop(0).token)

    @invariant()
    def replaced_open_in_time(self) -> None:
        for kind, models in self.former.items():
            for each in models:
                open_now = each.open(self.now, self.clock.seconds())
                answer = self.keyring.check(kind, each.token.encoded, self.now)
                key_id = each.token.public_id
                assert answer == (Granted(key_id) if open_now else Refused(Reason.EXPIRED, key_id))
                for other in set(TokenKind) - {kind}:
                    answer = self.keyring.check(other, each.token.encoded, self.now)
                    assert answer == Refused(Reason.WRONG_KIND, key_id)

    @invariant()
    def forgotten_stay_so(self) -> None:
        for token in self.forgotten:
            assert self.keyring.check(token.kind, token.encoded, self.now) == Refused(Reason.UNKNOWN)

    @invariant()
    def live_is_untouched(self) -> None:
        for kind, life in self.live.items():
            token = self.keyring.keys.of(kind)
            opens = isinstance(self.keyring.check(kind, token.encoded, self.now), Granted)
            assert opens == life.open(self.now, self.clock.seconds())
        api = self.keyring.keys.api.encoded
        assert isinstance(self.keyring.check(TokenKind.API, api, self.now), Granted)

    @invariant()
    def bounded_and_redacted(self) -> None:
        assert len(self.keyring._known) <= 3 + 2 * MOST_FORMER
        secrets = self.keyring.secrets()
        known = [each.token.encoded for models in self.former.values() for each in models]
        assert set(known) | {token.encoded for token in self.keyring.keys} <= set(secrets)


OverlapMachineTests = OverlapMachine.TestCase


class OverlapTests(SynchronousTestCase):
    """Tests for a keyring with an overlap."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting: list[Deferred[None]] = []

    def make(self, overlap: float, slow: bool = False) -> Keyring:
        def later(save: object, keys: KeySet) -> Deferred[None]:
            self.waiting.append(Deferred())
            return self.waiting[-1]

        return Keyring.create(
            nowhere,
            Random(1).randbytes,
            HOUR,
            NOW,
            self.clock.seconds,
            later if slow else maybeDeferred,
            timedelta(seconds=overlap),
        )

    def opens(self, keyring: Keyring, token: Token, now: datetime) -> bool:
        return isinstance(keyring.check(token.kind, token.encoded, now), Granted)

    def test_begins_when_the_new_one_is_live(self) -> None:
        """A slow disk does not shorten the overlap: both dates count from the end of the save."""
        keyring = self.make(60, slow=True)
        old = keyring.keys.inference
        done = keyring.rotate(TokenKind.INFERENCE, NOW)
        self.clock.advance(50)
        self.waiting.pop().callback(None)
        self.assertEqual(self.successResultOf(done).until, NOW + timedelta(seconds=110))
        self.clock.advance(59.999999)
        self.assertTrue(self.opens(keyring, old, NOW + timedelta(seconds=109.999999)))
        self.clock.advance(0.000002)
        self.assertFalse(self.opens(keyring, old, NOW))

    def test_failed_rotation(self) -> None:
        """A key that could not be replaced has no overlap to end: it lives as before."""
        keyring = self.make(60, slow=True)
        old = keyring.keys.inference
        done = keyring.rotate(TokenKind.INFERENCE, NOW)
        self.waiting.pop().errback(OSError("full"))
        self.failureResultOf(done, OSError)
        self.clock.advance(61)
        self.assertTrue(self.opens(keyring, old, NOW + timedelta(seconds=61)))

    def test_redacted_behind_failures(self) -> None:
        """However many rotations fail afterwards, a key that opens is redacted."""
        keyring = self.make(3000, slow=True)
        old = keyring.keys.inference
        keyring.rotate(TokenKind.INFERENCE, NOW)
        self.waiting.pop().callback(None)
        for _ in range(50):
            done = keyring.rotate(TokenKind.INFERENCE, NOW)
            self.waiting.pop().errback(OSError("full"))
            self.failureResultOf(done, OSError)
        self.assertTrue(self.opens(keyring, old, NOW))
        self.assertIn(old.encoded, keyring.secrets())


@given(st.timedeltas(timedelta(0), timedelta(days=2)), st.timedeltas(timedelta(milliseconds=10), timedelta(days=2)))
def test_replaced_ahead(overlap: timedelta, lifetime: timedelta) -> None:
    """The whole overlap comes before the expiry, except that no key is replaced in the first half of its life."""
    ahead = replaced_ahead(overlap, lifetime)
    assert ahead <= lifetime / 2
    assert (ahead == timedelta(0)) == (not overlap)
    assert not overlap or ahead == lifetime / 2 or ahead - timedelta(seconds=INTERVAL) == overlap


class ServedTests(SynchronousTestCase):
    """Tests for a server with an overlap."""

    def serve(self, **options: object) -> MemoryServer:
        server = MemoryServer(options)
        self.addCleanup(server.close)
        return server

    def test_told(self) -> None:
        """A rotation by ``/token`` leaves the old key for the overlap; the audit says until when."""
        server = self.serve(token_overlap_sec=90)
        old = server.key(TokenKind.INFERENCE)
        with capturedLogs() as events:
            new = server.rotate()
        [line] = [str(formatEvent(event)) for event in events if "was replaced by" in str(event.get("log_format"))]
        self.assertRegex(line, r"key (\w{8}) by key \w{8}, .*; key \1 is accepted until 2026-01-01T00:01:30\.000000Z$")
        server.advance(89.999999)
        self.assertTrue(server.opens(old))
        server.advance(0.000002)
        self.assertFalse(server.opens(old))
        self.assertTrue(server.opens(new))

    def test_a_restart_ends_it(self) -> None:
        """No overlap outlasts the server."""
        server = self.serve(token_overlap_sec=90)
        old = server.key(TokenKind.INFERENCE)
        server.rotate()
        server.restart()
        self.assertFalse(server.opens(old))

    @settings(max_examples=8)
    @given(every=st.integers(1, 60), past=st.integers(0, 59))
    def test_never_refused(self, every: int, past: int) -> None:
        """A client that reads the file at least once in each overlap is never refused under ``token_auto_rotate``."""
        with MemoryServer({"token_auto_rotate": True, "token_overlap_sec": 60, "token_expiration_min": 5}) as server:
            server.advance(past)
            key, keys = server.key(TokenKind.INFERENCE), set()
            for second in range(660):
                if second % every == 0:
                    key = server.key(TokenKind.INFERENCE)
                keys.add(key)
                server.advance(0.5)
                self.assertTrue(server.opens(key), second)
                server.advance(0.5)
            self.assertGreaterEqual(len(keys), 3)

    def test_longer_than_the_life(self) -> None:
        """An overlap that is longer than a key's life replaces keys at half of it, not each second."""
        server = self.serve(token_auto_rotate=True, token_overlap_sec=86400, token_expiration_min=1)
        seen = set()
        for _ in range(300):
            server.advance(1)
            seen.add(server.key(TokenKind.INFERENCE))
        self.assertEqual(len(seen), 11)
