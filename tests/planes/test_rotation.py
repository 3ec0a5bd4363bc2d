# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.planes.rotation``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.tokens import KeySet, Token
from twisted_serve.errors import BadRequest, InternalError
from twisted_serve.planes.rotation import Rotation

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class RotationTests(SynchronousTestCase):
    """Tests for replacing a token at somebody's request."""

    def setUp(self) -> None:
        self.saved: list[KeySet] = []
        self.broken: OSError | None = None
        self.waiting: list[Callable[[], object]] | None = None
        self.counted: Counter[str] = Counter()
        numbers = iter(range(1, 100))
        self.keyring = Keyring.create(
            self.save,
            lambda size: next(numbers).to_bytes(size, "big"),
            timedelta(hours=1),
            NOW,
            lambda: 0.0,
            self.defer,
        )
        journal = AuditLog(lambda: 0.0, lambda kind, reason: None, lambda kind: self.counted.update([kind]))
        self.rotation = Rotation(self.keyring, lambda: NOW + timedelta(minutes=1), journal)

    def defer(self, save: Callable[[KeySet], None], keys: KeySet) -> Deferred[None]:
        """Save at once, or when the test calls what waits."""
        if self.waiting is None:
            return maybeDeferred(save, keys)
        done: Deferred[None] = Deferred()
        self.waiting.append(lambda: maybeDeferred(save, keys).chainDeferred(done))
        return done

    def replace(self, name: str | None, by: str = "x") -> Deferred[Token]:
        return Deferred.fromCoroutine(self.rotation.replace_named(name, by))

    def save(self, keys: KeySet) -> None:
        if self.broken is not None:
            raise self.broken
        self.saved.append(keys)

    def test_replaced(self) -> None:
        """The new token is live, saved, returned, counted and recorded; the other one is as it was."""
        before = self.keyring.keys
        with capturedLogs() as events:
            token = self.successResultOf(self.replace("inference", by="10.0.0.1"))
        self.assertEqual(self.keyring.keys, self.saved[-1])
        self.assertIs(self.keyring.keys.inference, token)
        self.assertNotEqual(token.secret, before.inference.secret)
        self.assertEqual(token.expires, NOW + timedelta(minutes=61))
        self.assertEqual(self.keyring.keys.management, before.management)
        self.assertEqual(self.counted, {"inference": 1})
        lines = " ".join(str(formatEvent(event)) for event in events)
        self.assertIn("10.0.0.1", lines)
        self.assertNotIn(token.secret, lines)

    def test_not_replaceable(self) -> None:
        """Only these two can be replaced, by their exact names; the refusal names the parameter."""
        before = self.keyring.keys
        for name in (None, "", "API", "api", "Management", "inference ", "x"):
            error = self.failureResultOf(self.replace(name), BadRequest).value
            self.assertIn("Parameter type", error.message)
        self.assertEqual(self.keyring.keys, before)

    def test_not_saved(self) -> None:
        """When the new token cannot be saved the old one stays, and both the client and the record say so."""
        before = self.keyring.keys
        for broken, said in (
            (OSError(28, "No space left on device"), "No space left"),
            (OSError(), "cannot be written"),
        ):
            self.broken = broken
            with capturedLogs() as events:
                error = self.failureResultOf(self.replace("management"), InternalError).value
            self.assertIn("The management key stays as it was", error.message)
            self.assertIn(said, error.message)
            self.assertIn("was not replaced", str(formatEvent(events[0])))
        self.assertEqual(self.keyring.keys, before)
        self.assertEqual(self.counted, {})

    def test_in_order(self) -> None:
        """Of two rotations the second is written when the first is live; each client gets its own key."""
        self.waiting = []
        old = self.keyring.keys
        first, second = self.replace("inference"), self.replace("inference")
        self.assertEqual(len(self.waiting), 1)
        self.assertIs(self.keyring.keys, old)
        self.waiting.pop()()
        one = self.successResultOf(first)
        self.assertIs(self.keyring.keys.inference, one)
        self.assertNoResult(second)
        self.waiting.pop()()
        two = self.successResultOf(second)
        self.assertNotEqual(one.secret, two.secret)
        self.assertEqual([keys.inference for keys in self.saved], [old.inference, one, two])

    def test_not_live_before_it_is_saved(self) -> None:
        """While the new key is being written the old one opens, and the new one is kept out of the log already."""
        self.waiting = []
        old = self.keyring.keys.management
        asked = self.replace("management")
        [coming] = set(self.keyring.secrets()) - {token.encoded for token in self.keyring.keys}
        self.assertIs(self.keyring.keys.management, old)
        self.waiting.pop()()
        self.assertEqual(self.successResultOf(asked).encoded, coming)
        self.assertIn(old.encoded, self.keyring.secrets())

    def test_client_has_gone(self) -> None:
        """A rotation whose client has gone is finished and recorded: the file and the live keys agree."""
        self.waiting = []
        asked = self.replace("inference")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        with capturedLogs() as events:
            self.waiting.pop()()
        self.assertEqual(self.keyring.keys, self.saved[-1])
        self.assertEqual(self.counted, {"inference": 1})
        self.assertIn("was replaced by x", str(formatEvent(events[0])))

    def test_after_a_failure(self) -> None:
        """A rotation that fails lets the next one go on, from the keys that live."""
        self.waiting = []
        old = self.keyring.keys
        first, second = self.replace("inference"), self.replace("management")
        self.broken = OSError(28, "No space left on device")
        self.waiting.pop()()
        self.failureResultOf(first, InternalError)
        self.broken = None
        self.waiting.pop()()
        token = self.successResultOf(second)
        self.assertEqual(self.keyring.keys, old.replacing(token))
        self.assertEqual(self.saved[-1], self.keyring.keys)

    def test_saved_again(self) -> None:
        """The live keys can be saved again as they are, after a rotation that was asked for before."""
        self.waiting = []
        asked = self.replace("inference")
        again = Deferred.fromCoroutine(self.rotation.save_again())
        self.waiting.pop()()
        token = self.successResultOf(asked)
        self.waiting.pop()()
        self.successResultOf(again)
        self.assertEqual(len(self.saved), 3)
        self.assertEqual(self.saved[-1], self.keyring.keys)
        self.assertIs(self.saved[-1].inference, token)

    def test_not_saved_again(self) -> None:
        """If they cannot be saved again the log says why, and they live on."""
        before = self.keyring.keys
        self.broken = OSError(28, "No space left on device")
        with capturedLogs() as events:
            self.successResultOf(Deferred.fromCoroutine(self.rotation.save_again()))
        self.assertIn("No space left on device", str(formatEvent(events[0])))
        self.assertIs(self.keyring.keys, before)

    @given(st.text())
    def test_any_name(self, name: str) -> None:
        """No other name replaces anything."""
        if name not in ("management", "inference"):
            before = self.keyring.keys
            self.failureResultOf(self.replace(name), BadRequest)
            self.assertEqual(self.keyring.keys, before)
