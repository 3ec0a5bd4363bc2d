# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.guard``.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.test.requesthelper import DummyRequest
from zope.interface.verify import verifyObject

from twisted_serve.auth.gate import Allowed, Denied
from twisted_serve.auth.guard import Guard
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind


class Tree(Resource):
    """Answers with its name and with the path that it sees."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name.encode()

    def render(self, request: Any) -> bytes:
        return self.name + b": " + b"|".join(request.postpath)


class ListedGate:
    """Lets in whoever sends the name of the kind that is needed as the only ``Authorization``."""

    def ask(self, method: bytes, target: Target, authorization: Any) -> Allowed | Denied:
        kind = policy(method, target)
        if kind is None:
            return Allowed(None)
        return Allowed(kind) if list(authorization) == [kind.value.encode()] else Denied(kind, Reason.UNKNOWN)


def policy(method: bytes, target: Target) -> TokenKind | None:
    """Let ``OPTIONS`` in to all, ``/token`` with the API token, and everything else with the management token."""
    if method == b"OPTIONS":
        return None
    return TokenKind.API if target.first == "token" else TokenKind.MANAGEMENT


class GuardTests(SynchronousTestCase):
    """Tests for the resource around the routes."""

    def setUp(self) -> None:
        kinds = (None, TokenKind.MANAGEMENT, TokenKind.API)
        trees = {kind: Tree(kind.value if kind else "public") for kind in kinds}
        self.guard = Guard(trees, ListedGate(), self.refuse, self.reject)  # type: ignore[arg-type]

    def refuse(self, request: IRequest, stop: Denied) -> bytes:
        return f"refused: {stop.kind.value}".encode()

    def reject(self, request: IRequest, flaw: str) -> bytes:
        return f"rejected: {flaw}".encode()

    def render(self, uri: bytes, *authorization: bytes, method: bytes = b"GET") -> bytes:
        request = DummyRequest([b"as", b"twisted", b"has", b"read", b"it"])
        request.uri, request.method = uri, method
        request.requestHeaders.setRawHeaders(b"authorization", authorization)
        body = self.guard.render(request)  # type: ignore[arg-type]
        assert isinstance(body, bytes)
        return body

    def test_trees(self) -> None:
        """A request sees the tree of the token that it needs, and its path as the gate has read it."""
        self.assertEqual(self.render(b"/models/a%20b//?x", b"management"), b"management: models|a b")
        self.assertEqual(self.render(b"http://h/token/", b"API"), b"API: token")
        self.assertEqual(self.render(b"/models", method=b"OPTIONS"), b"public: models")
        self.assertEqual(self.render(b"/\xc3\xa4", b"management"), b"management: \xc3\xa4")

    def test_root(self) -> None:
        """The root is one empty segment, as routes expect it."""
        self.assertEqual(self.render(b"/", method=b"OPTIONS"), b"public: ")
        self.assertEqual(self.render(b"//", method=b"OPTIONS"), b"public: ")

    def test_refused(self) -> None:
        """Who lacks the token sees no tree, whatever else is wrong."""
        self.assertEqual(self.render(b"/models"), b"refused: management")
        self.assertEqual(self.render(b"/token", b"management"), b"refused: API")
        self.assertEqual(self.render(b"/models", b"management", b"management"), b"refused: management")
        self.assertEqual(self.render(b"/%zz"), b"refused: management")

    def test_rejected(self) -> None:
        """Who has the token is told of the flaw in the path."""
        self.assertEqual(self.render(b"/../token", b"management"), b"rejected: it contains a dot segment")

    def test_no_way_around_it(self) -> None:
        """It is the leaf of every path, and nothing can be put beside it."""
        verifyObject(IResource, self.guard)
        self.assertTrue(self.guard.isLeaf)
        self.assertIs(self.guard.getChildWithDefault(b"livez", DummyRequest([b"livez"])), self.guard)  # type: ignore[arg-type]
        error = self.assertRaises(TypeError, self.guard.putChild, b"livez", Tree("stray"))
        self.assertIn("livez", str(error))
