# SPDX-License-Identifier: Apache-2.0
"""
The short way past Klein: whoever takes it sees no difference.
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis.strategies import lists, sampled_from
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from zope.interface.verify import verifyObject

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.listening.roles import Role
from twisted_serve.testing.server import MemoryConnection, MemoryServer
from twisted_serve.web.routing.fast_path import FastPath, FastRoute
from twisted_serve.wire.messages import Item, Job

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT", "get")

PATHS = (
    "/",
    "/ping",
    "/ping/",
    "/ping/a/b",
    "/ping//a",
    "/pings",
    "/PING",
    "/predictions",
    "/predictions/",
    "/predictions/m",
    "/predictions/m/",
    "/predictions/m?a=1&b",
    "/predictions/m/1.0",
    "/predictions/m/1.0/",
    "/predictions/m/1.0/v1/chat",
    "/predictions/m/1.0/v1//chat",
    "/predictions/m/1.0/%E2%82%AC/x%20y",
    "/predictions/m//1.0",
    "/predictions//m",
    "/predictions/m/2.0",
    "/predictions/n",
    "/predictions/broken",
    "/predictions/%6d",
    "/predictions/m%2F1.0",
    "/predictions/m/..",
    "/predictions/<model>",
    "/predictions/m|x/y",
    "//predictions/m",
    "http://elsewhere/predictions/m",
    "/models/m/invoke",
)

_VARIES = re.compile(rb"(?m)^(X-Request-Id|Date): .*$")


def respond(jobs: list[Job]) -> list[Item] | Exception:
    """Answer with what came; a certain path makes the handler fail."""
    if any(job.headers.get("url_path", "") == "v1/chat" for job in jobs):
        return WorkerFailed(503, "Prediction failed")
    return [
        Item(
            job.request_id, 202, "Fine", {"X-Path": job.headers.get("url_path", "").encode().hex()}, job.parts[0].value
        )
        for job in jobs
    ]


class ShortcutTests(SynchronousTestCase):
    """Tests for :class:`FastPath`."""

    def setUp(self) -> None:
        self.server = MemoryServer({}, respond=respond, models={"m": {}})
        self.addCleanup(self.server.close)

    def shortcut(self) -> FastPath:
        guard: Any = self.server.server.site_of(Role.INFERENCE).resource
        tree: FastPath = guard._unguarded_trees[TokenKind.INFERENCE]
        return tree

    def exchange(self, head: str, body: bytes = b"x") -> bytes:
        """Send one request on a connection of its own, and return all that comes, without what always varies."""
        connection = self.server.connect()
        key = self.server.key(TokenKind.INFERENCE)
        lines = [head, "Host: h", f"Authorization: Bearer {key}", f"Content-Length: {len(body)}", "", ""]
        received = connection.send("\r\n".join(lines).encode() + body)
        return _VARIES.sub(rb"\1", received) + (b"" if connection.open else b"<closed>")

    def both(self, head: str) -> tuple[bytes, bytes]:
        """Send a request the short way and the long way."""
        short = self.exchange(head)
        shortcut = self.shortcut()
        fast_routes, shortcut._fast_routes = shortcut._fast_routes, {}
        try:
            return short, self.exchange(head)
        finally:
            shortcut._fast_routes = fast_routes

    def test_same_answers(self) -> None:
        """The fast path and Klein give the same bytes, for every method and path, errors included."""
        for method in METHODS:
            for path in PATHS:
                for version in ("1.1", "1.0"):
                    head = f"{method} {path} HTTP/{version}"
                    short, long = self.both(head)
                    self.assertEqual(short, long, head)
                    self.assertTrue(short.startswith(b"HTTP/"), head)

    @given(
        lists(
            sampled_from(["", "m", "1.0", "ping", "predictions", "x", "%20", "a:b", "%C3%A4", "<m>", "-"]), max_size=6
        )
    )
    def test_same_answers_to_any_path(self, segments: list[str]) -> None:
        """No path makes the fast path and Klein differ."""
        for first in ("predictions", "ping"):
            short, long = self.both(f"GET /{'/'.join([first, *segments])} HTTP/1.1")
            self.assertEqual(short, long)

    def test_taken(self) -> None:
        """Predictions and pings do take the short way."""
        shortcut = self.shortcut()
        shortcut.tree = Unwanted()
        for path in (
            "/ping",
            "/ping/a",
            "/predictions/m",
            "/predictions/m/1.0",
            "/predictions/m/1.0/a/b",
            "/predictions/n",
        ):
            self.assertNotIn(b"the long way", self.exchange(f"GET {path} HTTP/1.1"), path)
        self.assertIn(b"the long way", self.exchange("GET /predictions HTTP/1.1"))

    def test_resource(self) -> None:
        """It is a leaf, and nothing can be put below it."""
        shortcut = self.shortcut()
        verifyObject(IResource, shortcut)
        self.assertRaises(TypeError, shortcut.putChild, b"x", Resource())

    def test_unknown_error(self) -> None:
        """What an endpoint raises outside of the error tree is a logged 500."""
        shortcut = self.shortcut()
        for failing in (_raise, _fail):
            shortcut._fast_routes = {"ping": FastRoute(failing, named=0, needed=0)}
            self.assertIn(b"Internal server error.", self.exchange("GET /ping HTTP/1.1"))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Unwanted(Resource):
    """Says that it was asked."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        return b"the long way"


def _raise(request: object, *segments: str) -> bytes:
    raise ZeroDivisionError


def _fail(request: object, *segments: str) -> Deferred[bytes]:
    failed: Deferred[bytes] = Deferred()
    failed.errback(ZeroDivisionError())
    return failed


class GoneTests(SynchronousTestCase):
    """Tests for clients which do not wait for their answer."""

    def setUp(self) -> None:
        self.server = MemoryServer({}, models={"m": {}})
        self.addCleanup(self.server.close)
        guard: Any = self.server.server.site_of(Role.INFERENCE).resource
        self.shortcut: FastPath = guard._unguarded_trees[TokenKind.INFERENCE]

    def ask(self, answer: Deferred[bytes]) -> MemoryConnection:
        """Ask for what ``answer`` will be."""
        self.shortcut._fast_routes = {"ping": FastRoute(lambda request, *rest: answer, named=0, needed=0)}
        connection = self.server.connect()
        bearer = f"Authorization: Bearer {self.server.key(TokenKind.INFERENCE)}"
        connection.send(f"GET /ping HTTP/1.1\r\nHost: h\r\n{bearer}\r\n\r\n".encode())
        return connection

    def test_called_off(self) -> None:
        """When the client leaves, the answer is cancelled, and that is not worth a line."""
        cancelled: list[Deferred[bytes]] = []
        answer: Deferred[bytes] = Deferred(cancelled.append)
        self.ask(answer).leave()
        self.assertEqual(cancelled, [answer])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_comes_too_late(self) -> None:
        """An answer that comes all the same is dropped; an error is logged."""
        answer: Deferred[bytes] = Deferred(lambda answer: answer.callback(b"late"))
        connection = self.ask(answer)
        connection.leave()
        self.assertEqual(connection.received, b"")
        self.ask(Deferred(lambda answer: answer.errback(ZeroDivisionError()))).leave()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_answered(self) -> None:
        """After its answer, the client's leaving touches nothing."""
        answer: Deferred[bytes] = Deferred(self.fail)
        connection = self.ask(answer)
        answer.callback(b"pong")
        self.assertIn(b"pong", connection.received)
        connection.leave()
