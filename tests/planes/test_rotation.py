# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.planes.rotation``.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.journal import Journal
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.tokens import KeySet
from twisted_serve.errors import BadRequest, InternalError
from twisted_serve.planes.rotation import Rotation

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class RotationTests(SynchronousTestCase):
    """Tests for replacing a token at somebody's request."""

    def setUp(self) -> None:
        self.saved: list[KeySet] = []
        self.broken: OSError | None = None
        self.counted: Counter[str] = Counter()
        numbers = iter(range(1, 100))
        self.keyring = Keyring.create(
            self.save, lambda size: next(numbers).to_bytes(size, "big"), timedelta(hours=1), NOW
        )
        journal = Journal(lambda: 0.0, lambda kind, reason: None, lambda kind: self.counted.update([kind]))
        self.rotation = Rotation(self.keyring, lambda: NOW + timedelta(minutes=1), journal)

    def save(self, keys: KeySet) -> None:
        if self.broken is not None:
            raise self.broken
        self.saved.append(keys)

    def test_replaced(self) -> None:
        """The new token is live, saved, returned, counted and recorded; the other one is as it was."""
        before = self.keyring.keys
        with capturedLogs() as events:
            token = self.rotation.replace_named("inference", by="10.0.0.1")
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
            error = self.assertRaises(BadRequest, self.rotation.replace_named, name, "x")
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
                error = self.assertRaises(InternalError, self.rotation.replace_named, "management", "x")
            self.assertIn("The management key stays as it was", error.message)
            self.assertIn(said, error.message)
            self.assertIn("was not replaced", str(formatEvent(events[0])))
        self.assertEqual(self.keyring.keys, before)
        self.assertEqual(self.counted, {})

    @given(st.text())
    def test_any_name(self, name: str) -> None:
        """No other name replaces anything."""
        if name not in ("management", "inference"):
            before = self.keyring.keys
            self.assertRaises(BadRequest, self.rotation.replace_named, name, "x")
            self.assertEqual(self.keyring.keys, before)
