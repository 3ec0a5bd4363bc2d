# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.planes.senders`, and for the inference plane as a sender sees it."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys_case import KeyedServer
from twisted_serve.auth.gate import Allowed, Denied
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.needs import Need
from twisted_serve.errors import InsufficientScope, ModelNotFound
from twisted_serve.interfaces import Operation, TokenKind
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.senders import Sender, taken
from twisted_serve.wire.messages import Job

NEED = Need(Operation.PREDICT, TokenKind.INFERENCE)


class SenderTests(SynchronousTestCase):
    """A sender and what it sees."""

    def setUp(self) -> None:
        self.server = KeyedServer(models={"resnet": {}, "secret": {}})
        self.addCleanup(self.server.close)
        calls: Any = self.server.server._find_calls()
        self.plane: InferencePlane = calls.predictions._plane
        self.denied: list[Denied] = []

    def sender(self, *scopes: str, operation: Operation = Operation.PREDICT, **fields: Any) -> Sender:
        self.server.put("k", *scopes, **fields)
        allowed = Allowed(NEED.scope, self.server.named.index.by_name["k"], Need(operation, NEED.scope))
        sender = taken(allowed, self.denied.append)
        assert isinstance(sender, Sender)
        return sender

    def test_nothing_is_forgotten(self) -> None:
        """Each method that takes or returns names of models is another one for a sender."""
        seen = type(self.plane.seen_by(self.sender("inference:resnet*")))
        concerned = {
            name
            for name, member in inspect.getmembers(InferencePlane, inspect.isfunction)
            if not name.startswith("_")
            and (
                "name" in inspect.signature(member).parameters
                or "str" in str(inspect.signature(member).return_annotation)
            )
        }
        self.assertEqual(
            concerned, {"predict", "enter", "find", "versions", "names", "only_startup_model", "model_ready"}
        )
        self.assertEqual({name for name in concerned if name not in vars(seen)}, set())

    def test_refused(self) -> None:
        """A model that the key does not open is refused with the same words, registered or not; each is recorded."""
        seen = self.plane.seen_by(self.sender("inference:resnet*"))
        job = Job("id", {}, [])
        ways: Any = (
            lambda name: seen.predict(name, None, job, lambda *_: None),
            lambda name: seen.find(name, None),
            lambda name: seen.find(name, "2.0"),
            seen.versions,
            lambda name: seen.model_ready(name, None),
        )
        for way in ways:
            texts = {str(self.assertRaises(InsufficientScope, way, name)) for name in ("secret", "nobody")}
            self.assertEqual(len(texts), 1)
        self.assertEqual({denied.reason for denied in self.denied}, {Reason.SCOPE})
        self.assertEqual(len(self.denied), 2 * len(ways))
        self.assertRaises(ModelNotFound, seen.find, "resnet-50", None)
        self.assertEqual(seen.names(), ["resnet"])
        self.assertIs(seen.seen_by(None), seen)

    def test_operation(self) -> None:
        """A scope without a pattern opens its operation for all models, whatever the patterns of others are."""
        for operation, scopes in (
            (Operation.LIST_MODELS, ("models:read", "inference:resnet*")),
            (Operation.PREDICT, ("inference", "inference:resnet*")),
            (Operation.PREDICT, ("inference:secret", "inference:resnet*")),
        ):
            seen = self.plane.seen_by(self.sender(*scopes, operation=operation))
            self.assertEqual(seen.names(), ["resnet", "secret"], scopes)

    def test_own_plane(self) -> None:
        """Without a named key nothing is in between."""
        self.assertIs(self.plane.seen_by(None), self.plane)

    def test_leaving(self) -> None:
        """The place is given back once."""
        sender = self.sender("inference", concurrent=2)
        other = taken(sender.allowed, self.denied.append)
        self.assertEqual(self.server.in_flight("k"), 2)
        sender.leave()
        sender.leave()
        self.assertEqual(self.server.in_flight("k"), 1)
        self.assertIsInstance(other, Sender)

    def test_without_key(self) -> None:
        """A request without a named key has no sender."""
        self.assertRaises(ValueError, taken, Allowed(TokenKind.INFERENCE), self.denied.append)
        sender = Sender(Allowed(TokenKind.INFERENCE), None, self.denied.append)
        self.assertFalse(sender.sees("resnet"))
