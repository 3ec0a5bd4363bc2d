# SPDX-License-Identifier: Apache-2.0
"""Tests for plug-ins (:mod:`twisted_serve.endpoints`) on a server in memory."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.endpoints import RESERVED, Context, Endpoint, EndpointAnswer, EndpointRequest, by_segment
from twisted_serve.errors import MethodNotAllowed
from twisted_serve.plugins import sagemaker
from twisted_serve.testing.server import Answer, MemoryServer, Role

ONE = "http://127.0.0.1:8080"


class Plugin:
    """An endpoint that says what it was asked, or what it is told to."""

    def __init__(self, answer: Any = None) -> None:
        self.requests: list[EndpointRequest] = []
        self.contexts: list[Context] = []
        self._answer = answer

    def __call__(self, request: EndpointRequest, context: Context) -> Any:
        self.requests.append(request)
        self.contexts.append(context)
        if isinstance(self._answer, Exception):
            raise self._answer
        return EndpointAnswer(b"plugged") if self._answer is None else self._answer


class PluggedCase(SynchronousTestCase):
    """A server with plug-ins."""

    def serve(self, *endpoints: Endpoint, **options: Any) -> MemoryServer:
        server = MemoryServer(options, models={"m": {}}, endpoints=endpoints)
        self.addCleanup(server.close)
        return server

    def ask(
        self,
        server: MemoryServer,
        path: str,
        method: str = "GET",
        kind: TokenKind | None = TokenKind.INFERENCE,
        **more: Any,
    ) -> Answer:
        key = None if kind is None else server.key(kind)
        return server.request(method, path, key, role=more.pop("role", Role.INFERENCE), **more)


class GateTests(PluggedCase):
    """Behind the gate, before the routes."""

    def test_key(self) -> None:
        """A plug-in needs the key of its kind, on the listener of its kind."""
        inference, management = Plugin(), Plugin()
        for options in ({}, {"inference_address": ONE, "management_address": ONE}):
            server = self.serve(
                Endpoint("a", "inference", inference), Endpoint("b", "management", management), **options
            )
            for segment, right, role in (
                ("a", TokenKind.INFERENCE, Role.INFERENCE),
                ("b", TokenKind.MANAGEMENT, Role.MANAGEMENT),
            ):
                for path in (f"/{segment}", f"/{segment}/", f"/{segment}/x/y", f"/%{ord(segment):x}/x//y"):
                    for kind in (None, *TokenKind):
                        answer = self.ask(server, path, kind=kind, role=role)
                        self.assertEqual(answer.status, 200 if kind is right else 400, (path, kind))
        self.assertEqual(len(inference.requests), 8)
        self.assertEqual(len(management.requests), 8)

    def test_other_listener(self) -> None:
        """On the other listener there is no such path."""
        plugin = Plugin()
        server = self.serve(Endpoint("a", "management", plugin))
        self.assertEqual(self.ask(server, "/a").status, 404)
        self.assertEqual(self.ask(server, "/a", kind=TokenKind.MANAGEMENT).status, 400)
        self.assertEqual(plugin.requests, [])

    def test_built_in(self) -> None:
        """A plug-in goes before the server's own route, with any method; the others are as they were."""
        plugin = Plugin()
        server = self.serve(Endpoint("predictions", "inference", plugin), Endpoint("models", "management", plugin))
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            self.assertEqual(self.ask(server, "/predictions/m", method).body, b"plugged")
            answer = self.ask(server, "/models", method, TokenKind.MANAGEMENT, role=Role.MANAGEMENT)
            self.assertEqual(answer.body, b"plugged")
        self.assertEqual(self.ask(server, "/ping").json, {"status": "Healthy"})
        self.assertEqual(self.ask(server, "/v1/models/m:predict", "POST", body=b'{"instances": [1]}').status, 200)

    def test_exempt_ping(self) -> None:
        """The plug-in for /ping needs a key also where the server's own would not."""
        plugin = Plugin()
        server = self.serve(Endpoint("ping", "inference", plugin), token_exempt_ping=True)
        self.assertEqual(self.ask(server, "/ping", kind=None).status, 400)
        self.assertEqual(plugin.requests, [])
        self.assertEqual(self.ask(server, "/ping").body, b"plugged")

    def test_reserved(self) -> None:
        """What is open, and where keys are replaced, is no plug-in's; nor is what cannot be a segment."""
        for segment in (*RESERVED, "", "..", "a/b", "a b", "é", "x" * 65, "a%2f"):
            self.assertRaises(ValueError, Endpoint, segment, "inference", Plugin())
        self.assertRaises(ValueError, Endpoint, "a", "metric", Plugin())

    def test_two(self) -> None:
        """Two for one segment are refused, naming both, and the server does not start."""
        one = Endpoint("a", "inference", Plugin(), "one of A 1.0")
        two = Endpoint("a", "management", Plugin(), "two of B 2.0")
        with self.assertRaises(ValueError) as caught:
            self.serve(one, two)
        self.assertEqual(
            str(caught.exception), 'Multiple plugins found for endpoint "a": one of A 1.0 and two of B 2.0'
        )
        self.assertEqual(by_segment([one, Endpoint("b", "inference", Plugin())]).keys(), {"a", "b"})


class ExchangeTests(PluggedCase):
    """What a plug-in gets, and what becomes of its answer."""

    def test_request(self) -> None:
        """It gets path, query, headers and body as they were sent, and not the client's key."""
        plugin = Plugin()
        server = self.serve(Endpoint("a", "inference", plugin))
        self.ask(server, "/a/b%20c?x=1&y=&x=2", "POST", headers={"X-Own": "v"}, body=b"body")
        [request] = plugin.requests
        self.assertEqual((request.method, request.segments, request.body), ("POST", ("a", "b c"), b"body"))
        self.assertEqual(request.query, {"x": ("1", "2"), "y": ("",)})
        self.assertEqual(request.headers["x-own"], "v")
        self.assertNotIn(server.key(TokenKind.INFERENCE), repr(request))

    def test_too_large(self) -> None:
        """A body over the limit does not reach it."""
        plugin = Plugin()
        server = self.serve(Endpoint("a", "inference", plugin), max_request_size=10)
        self.assertEqual(self.ask(server, "/a", "POST", body=b"x" * 11).status, 413)
        self.assertEqual(plugin.requests, [])

    def test_context(self) -> None:
        """It sees models and workers as they are now, and the settings without the secret ones."""
        plugin = Plugin()
        server = self.serve(Endpoint("a", "inference", plugin), keystore_pass="S3cret")
        self.ask(server, "/a")
        [context] = plugin.contexts
        [model] = context.models
        self.assertEqual((model.name, model.version, model.default, model.loaded_at_startup), ("m", "1.0", True, True))
        self.assertEqual([worker.ready for worker in model.workers], [True])
        self.assertEqual(context.settings["max_request_size"], "6553500")
        self.assertNotIn("keystore_pass", context.settings)
        self.assertNotIn("S3cret", repr(context))

    def test_answer(self) -> None:
        """Its status, headers and body are sent, with what every answer has."""
        plugin = Plugin(EndpointAnswer(b"{}", 207, {"Content-Type": "application/json", "X-Own": "v"}))
        answer = self.ask(self.serve(Endpoint("a", "inference", plugin)), "/a")
        self.assertEqual((answer.status, answer.body), (207, b"{}"))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertIn("x-request-id", answer.headers)

    def test_later(self) -> None:
        """A Deferred is answered when it fires, and cancelled when the client leaves."""
        answer: Deferred[EndpointAnswer] = Deferred()
        server = self.serve(Endpoint("a", "inference", Plugin(answer)))
        asked = server.send("GET", "/a", server.key(TokenKind.INFERENCE))
        self.assertNoResult(asked)
        answer.callback(EndpointAnswer(b"late"))
        self.assertEqual(server.answered(asked).body, b"late")
        cancelled: list[object] = []
        waiting: Deferred[EndpointAnswer] = Deferred(cancelled.append)
        server = self.serve(Endpoint("a", "inference", Plugin(waiting)))
        connection = server.connect()
        key = server.key(TokenKind.INFERENCE)
        connection.send(f"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        self.assertEqual(cancelled, [])
        connection.leave()
        self.assertEqual(cancelled, [waiting])

    def test_error(self) -> None:
        """What it raises is a 500 which tells nothing, or the answer of our own error."""
        server = self.serve(
            Endpoint("a", "inference", Plugin(KeyError("S3cret"))),
            Endpoint("b", "inference", Plugin(MethodNotAllowed())),
            Endpoint("c", "inference", Plugin("text")),
        )
        for path, status in (("/a", 500), ("/b", 405), ("/c", 500)):
            answer = self.ask(server, path)
            self.assertEqual((answer.status, answer.json["code"]), (status, status))
            self.assertNotIn(b"S3cret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        [wrong] = self.flushLoggedErrors(TypeError)
        self.assertIn("test_plugins", str(wrong.value))

    @given(st.text(), st.text())
    def test_headers(self, name: str, value: str) -> None:
        """No header can end itself and begin another, or speak of the connection."""
        try:
            made = EndpointAnswer(headers={name: value})
        except ValueError:
            return
        [(name, value)] = made.headers.items()
        self.assertTrue(name.isascii() and name.strip() and not set("\r\n: ") & set(name))
        self.assertFalse(set("\r\n\0") & set(value))
        value.encode("latin-1")

    def test_refused_answers(self) -> None:
        """An answer that cannot be sent cannot be made."""
        wrong: list[dict[str, Any]] = [
            {"status": 100},
            {"status": 600},
            {"status": "200"},
            {"body": "text"},
            {"headers": {"Content-Length": "7"}},
            {"headers": {"transfer-encoding": "chunked"}},
            {"headers": {"X": "a\r\nY: b"}},
        ]
        for members in wrong:
            self.assertRaises(ValueError, EndpointAnswer, **members)


class SageMakerTests(PluggedCase):
    """The endpoints which come with the server."""

    def test_execution_parameters(self) -> None:
        """Batch transform may send as many requests at once as there are workers."""
        server = self.serve(sagemaker.execution_parameters, default_workers_per_model=3)
        answer = self.ask(server, "/execution-parameters")
        expected = {"MaxConcurrentTransforms": 3, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
        self.assertEqual((answer.status, answer.json), (200, expected))
        self.assertEqual(self.ask(server, "/execution-parameters", "POST").status, 405)

    def test_ping(self) -> None:
        """Ping is 200 as soon as a worker has loaded."""
        server = self.serve(sagemaker.ping)
        answer = self.ask(server, "/ping")
        self.assertEqual((answer.status, answer.body), (200, b'{\n\t"Status": "Healthy"\n}\n'))
        server.provider.workers[0].kill()
        answer = self.ask(server, "/ping")
        self.assertEqual((answer.status, answer.body), (503, b"Models are not loaded"))
        self.assertEqual(json.loads(self.ask(server, "/readyz", kind=None).body), {"status": "Not ready"})
