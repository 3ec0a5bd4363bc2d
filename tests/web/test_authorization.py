# SPDX-License-Identifier: Apache-2.0
"""
Who may do what: every route, with every kind of key and of no key, against the whole server in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role

API, INFERENCE, MANAGEMENT = TokenKind.API, TokenKind.INFERENCE, TokenKind.MANAGEMENT

# Every guarded route: listener, method, path, and the status with the right key.
ROUTES = (
    (Role.INFERENCE, "GET", "/ping", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/ping/more", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/predictions/m", INFERENCE, 200),
    (Role.INFERENCE, "PUT", "/predictions/m/1.0", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/predictions/m/1.0/v1/chat", INFERENCE, 200),
    (Role.INFERENCE, "OPTIONS", "/predictions/m", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/explanations/m", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/explanations/m/1.0", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/explanations/m/1.0/x/y", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/invocations", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/models/m/invoke", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/m/predict", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/m/1.0/predict", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/token/predict", INFERENCE, 404),
    (Role.INFERENCE, "POST", "/models/predict", INFERENCE, 404),
    (Role.INFERENCE, "POST", "/wfpredict/w", INFERENCE, 404),
    (Role.INFERENCE, "POST", "/WFPredict/w/more", INFERENCE, 404),
    (Role.INFERENCE, "POST", "/wfpredict", INFERENCE, 404),
    (Role.INFERENCE, "GET", "/workflows", INFERENCE, 404),
    (Role.INFERENCE, "POST", "/v1/models/m:predict", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/v1/models/m:explain", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v1/models", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v1/models/m", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/v1/models/m", INFERENCE, 405),
    (Role.INFERENCE, "GET", "/v1/models/m:ready", INFERENCE, 404),
    (Role.INFERENCE, "POST", "/v2/models/m/infer", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/v2/models/m/explain", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v2", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v2/health/live", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v2/health/ready", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v2/models/m", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v2/models/m/ready", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v2/models/m/versions/1.0", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/v2/models/m/versions/1.0/ready", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/v2/models/m/versions/1.0/infer", INFERENCE, 200),
    (Role.INFERENCE, "POST", "/v2/models/m/versions/1.0/explain", INFERENCE, 200),
    (Role.INFERENCE, "GET", "/docs/more", INFERENCE, 404),
    (Role.INFERENCE, "GET", "/predictions", INFERENCE, 404),
    (Role.INFERENCE, "GET", "/", INFERENCE, 405),
    (Role.INFERENCE, "GET", "/nowhere", INFERENCE, 404),
    (Role.INFERENCE, "GET", "/models", INFERENCE, 404),
    (Role.INFERENCE, "GET", "/token?type=management", INFERENCE, 404),
    (Role.INFERENCE, "GET", "/metrics", INFERENCE, 404),
    (Role.INFERENCE, "GET", "/livez/more", INFERENCE, 404),
    (Role.MANAGEMENT, "GET", "/models", MANAGEMENT, 200),
    (Role.MANAGEMENT, "GET", "/models/m", MANAGEMENT, 200),
    (Role.MANAGEMENT, "GET", "/models/m/1.0", MANAGEMENT, 200),
    (Role.MANAGEMENT, "GET", "/models/m/all", MANAGEMENT, 200),
    (Role.MANAGEMENT, "GET", "/models/m?customized=true", MANAGEMENT, 200),
    (Role.MANAGEMENT, "OPTIONS", "/models/m", MANAGEMENT, 200),
    (Role.MANAGEMENT, "OPTIONS", "/models/m/1.0", MANAGEMENT, 200),
    (Role.MANAGEMENT, "GET", "/workflows", MANAGEMENT, 200),
    (Role.MANAGEMENT, "GET", "/workflows/w", MANAGEMENT, 404),
    (Role.MANAGEMENT, "DELETE", "/workflows/w", MANAGEMENT, 404),
    (Role.MANAGEMENT, "PUT", "/workflows/w", MANAGEMENT, 405),
    (Role.MANAGEMENT, "POST", "/wfpredict/w", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/v1/models", MANAGEMENT, 200),
    (Role.MANAGEMENT, "GET", "/v1/models/m", MANAGEMENT, 200),
    (Role.MANAGEMENT, "POST", "/v1/models/m", MANAGEMENT, 405),
    (Role.MANAGEMENT, "POST", "/v1/models/m:predict", MANAGEMENT, 405),
    (Role.MANAGEMENT, "POST", "/models/m/invoke", MANAGEMENT, 405),
    (Role.MANAGEMENT, "POST", "/m/predict", MANAGEMENT, 404),
    (Role.MANAGEMENT, "PUT", "/models/m?min_worker=1", MANAGEMENT, 202),
    (Role.MANAGEMENT, "PUT", "/models/m/1.0?min_worker=1", MANAGEMENT, 202),
    (Role.MANAGEMENT, "PUT", "/models/m/1.0/set-default", MANAGEMENT, 200),
    (Role.MANAGEMENT, "POST", "/models?url=m", MANAGEMENT, 409),
    (Role.MANAGEMENT, "DELETE", "/models/absent", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/nowhere", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/ping", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/token/more", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/models/token", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/models/tokenizer", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/models?x=/token&type=management", MANAGEMENT, 200),
    (Role.MANAGEMENT, "POST", "/models?url=http://h/token.mar", MANAGEMENT, 404),
    (Role.MANAGEMENT, "GET", "/token?type=inference", API, 200),
    (Role.MANAGEMENT, "POST", "/token?type=management", API, 200),
    (Role.MANAGEMENT, "GET", "/token/?type=management", API, 200),
    (Role.MANAGEMENT, "DELETE", "/token?type=management", API, 405),
    (Role.MANAGEMENT, "OPTIONS", "/token?type=management", API, 405),
    (Role.MANAGEMENT, "GET", "/token?type=API", API, 400),
)

# Every public path.
OPEN = (
    *((role, "GET", path, 200) for role in Role for path in ("/livez", "/readyz", "/api-description", "/docs")),
    *((role, "OPTIONS", "/", 200) for role in Role),
    (Role.METRICS, "GET", "/metrics", 200),
    (Role.METRICS, "GET", "/nowhere", 404),
)

# Ways to write a path for which some server or proxy has a meaning of its own.
TRICKS = (
    "//token?type=management",
    "/./token?type=management",
    "/models/../token?type=management",
    "/%2e%2e/token?type=management",
    "/models%2F..%2Ftoken?type=management",
    "/TOKEN?type=management",
    "/Token?type=management",
    "/token;x=1?type=management",
    "/token%00?type=management",
    "/token%20?type=management",
    "/%2ftoken?type=management",
    "/docs/../models",
    "/docs;/models",
    "/DOCS",
    "/docs%00",
    "/v1/models/m%3Apredict/../..",
    "/models/m/invoke/../../../token?type=management",
    "/livez/../models",
    "/livez%2F..%2Fmodels",
    "/livez;/models",
    "/LIVEZ",
    "/livez//x",
    "/readyz%00",
    "/api-description/../models",
    "/%252e%252e/livez",
    "/\\livez",
    "/metrics",
    "/models#/livez",
    "*",
    "livez",
    "/ping",
    "/PING",
)


def bad_keys(server: MemoryServer, right: TokenKind) -> Iterator[tuple[str, dict[str, Any]]]:
    """Go through the ways of not having the right key."""
    key = server.key(right)
    yield "none", {}
    yield "empty header", {"Authorization": [""]}
    yield "empty token", {"Authorization": ["Bearer "]}
    yield "no scheme", {"Authorization": [key]}
    yield "wrong scheme", {"Authorization": [f"Basic {key}"]}
    yield "glued", {"Authorization": [f"Bearer{key}"]}
    yield "something after", {"Authorization": [f"Bearer {key} x"]}
    yield "something before", {"Authorization": [f"x Bearer {key}"]}
    yield "random", {"Authorization": ["Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]}
    yield "cut", {"Authorization": [f"Bearer {key[:-1]}"]}
    yield "longer", {"Authorization": [f"Bearer {key}A"]}
    yield "very long", {"Authorization": ["Bearer " + "A" * 5000]}
    yield "two headers, right first", {"Authorization": [f"Bearer {key}", "Bearer x"]}
    yield "two headers, right last", {"Authorization": ["Bearer x", f"Bearer {key}"]}
    yield "two right headers", {"Authorization": [f"Bearer {key}", f"Bearer {key}"]}
    yield "in another header", {"X-Authorization": [f"Bearer {key}"]}
    yield "as a cookie", {"Cookie": [f"Authorization=Bearer {key}"]}
    for other in TokenKind:
        if other is not right:
            yield f"the {other.value} key", {"Authorization": [f"Bearer {server.key(other)}"]}


class MatrixTests(SynchronousTestCase):
    """Tests for every route with every kind of key."""

    def setUp(self) -> None:
        self.server = MemoryServer({"ts_open_inference_protocol": True}, models={"m": {}})
        self.addCleanup(self.server.close)

    def assertRefused(self, answer: Any, kind: TokenKind, method: str, path: str, what: object = None) -> None:
        word = "Authentication" if kind is API else "Authorization"
        message = f"Token {word} failed. Token either incorrect, expired, or not provided correctly"
        # Clients of the Open Inference Protocol look for their own member.
        error = {"error": message} if (path + "/").startswith("/v2/") else {}
        expected = {"code": 400, "type": "InvalidKeyException", "message": message, **error}
        self.assertEqual((answer.status, answer.json), (400, expected), (method, path, what))
        self.assertTrue(answer.headers["www-authenticate"].startswith("Bearer"), (method, path, what))

    def test_right_key(self) -> None:
        """With its own key, each route does what it is for."""
        for role, method, path, kind, status in ROUTES:
            answer = self.server.request(method, path, self.server.key(kind), body=b"x", role=role)
            self.assertEqual(answer.status, status, (method, path, answer))
            self.assertNotIn(b"InvalidKeyException", answer.body, (method, path))

    def test_scheme_in_any_case(self) -> None:
        """The scheme is compared without regard to case, and any number of blanks may follow it."""
        for scheme in ("Bearer ", "bearer ", "BEARER ", "Bearer   "):
            headers = {"Authorization": scheme + self.server.key(INFERENCE)}
            self.assertEqual(self.server.request("GET", "/ping", headers=headers).status, 200)

    def test_wrong_keys(self) -> None:
        """Without its own key no route does anything, and all say the same."""
        for role, method, path, kind, _status in ROUTES:
            for what, headers in bad_keys(self.server, kind):
                for body in (b"", b"x" * 10):
                    keys = self.server.keys
                    answer = self.server.request(method, path, headers=headers, body=body, role=role)
                    self.assertRefused(answer, kind, method, path, what)
                    self.assertEqual(self.server.keys, keys)

    def test_expired_keys(self) -> None:
        """An expired key is like none; the API key does not expire and puts things right."""
        self.server.advance(timedelta(minutes=60).total_seconds())
        for role, method, path, kind, _status in ROUTES:
            if kind is not API:
                answer = self.server.request(method, path, self.server.key(kind), role=role)
                self.assertRefused(answer, kind, method, path)
        self.server.request("GET", "/token?type=inference", self.server.key(API))
        self.assertEqual(self.server.request("GET", "/ping", self.server.key(INFERENCE)).status, 200)

    def test_public_paths(self) -> None:
        """What is open needs no key, and minds none that is wrong."""
        for role, method, path, status in OPEN:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": ["a", "b"]}):
                answer = self.server.request(method, path, headers=headers, role=role)
                self.assertEqual(answer.status, status, (method, path, answer))

    def test_only_these_methods_of_the_root_are_open(self) -> None:
        """Of the root only its description is open."""
        for role in (Role.INFERENCE, Role.MANAGEMENT):
            for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
                for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json, text/html;q=0"}):
                    self.assertEqual(self.server.request(method, "/", headers=headers, role=role).status, 400)

    def test_browsers(self) -> None:
        """A browser at the root is sent to the open page, with a key or without, and to nothing else."""
        html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
        for role, kind in ((Role.INFERENCE, INFERENCE), (Role.MANAGEMENT, MANAGEMENT)):
            right = f"Authorization: Bearer {self.server.key(kind)}"
            for headers in ((html,), (html, right), ("Accept: a/b", "Accept: TEXT/HTML ;q=0.5")):
                connection = self.server.connect(role)
                self.assertEqual(connection.get("/", *headers), 302)
                self.assertIn(b"\r\nLocation: docs\r\n", connection.received)
            for headers, status in (
                ((html, "Authorization: Bearer wrong"), 400),
                (("Accept: text/html;q=0, */*",), 400),
                (("Accept: text/html;q=0.000", right), 405),
                ((right,), 405),
            ):
                self.assertEqual(self.server.connect(role).get("/", *headers), status)
            for path in ("/models", "/ping", "/x", "/%2F", "/..", "/token", "http://h/.."):
                self.assertEqual(self.server.connect(role).get(path, html), 400, path)

    def test_path_tricks_without_a_key(self) -> None:
        """No way of writing a path opens what it needs a key for."""
        for role in (Role.INFERENCE, Role.MANAGEMENT):
            for path in (*TRICKS, *(f"http://h{path}" for path in TRICKS)):
                for headers in ((), ("Content-Length: 3",), ("Transfer-Encoding: chunked",)):
                    connection = self.server.connect(role)
                    self.assertEqual(connection.get(path, *headers), 400, (role, path, headers))
                    self.assertIn(b"InvalidKeyException", connection.received, (role, path, headers))

    def test_path_tricks_do_not_rotate(self) -> None:
        """No way of writing the path of the token API but its own replaces a key."""
        keys = self.server.keys
        for kind in TokenKind:
            for path in TRICKS:
                connection = self.server.connect(Role.MANAGEMENT)
                connection.get(path, f"Authorization: Bearer {self.server.key(kind)}")
                self.assertEqual(self.server.keys, keys, path)

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#?"), max_size=30))
    @example("/livez")
    @example("/token")
    @example("/readyz/")
    def test_any_path(self, path: str) -> None:
        """Without a key any path but the open ones is refused, known or not."""
        pieces = [piece for piece in path.split("/") if piece]
        answer = self.server.request("GET", "/" + path.lstrip("/"), role=Role.MANAGEMENT)
        if pieces not in (["livez"], ["readyz"], ["api-description"], ["docs"]):
            self.assertEqual(answer.status, 400)
            self.assertEqual(answer.json["type"], "InvalidKeyException")


class SharedListenerTests(SynchronousTestCase):
    """Tests for listeners which share an address."""

    def server(self, **options: Any) -> MemoryServer:
        server = MemoryServer(options, models={"m": {}})
        self.addCleanup(server.close)
        return server

    def test_all_on_one(self) -> None:
        """On one address for everything, each path needs its own key, and the metrics none."""
        one = "http://127.0.0.1:8080"
        server = self.server(
            inference_address=one, management_address=one, metrics_address=one, ts_open_inference_protocol=True
        )
        self.assertEqual(len(server.clock.tcpServers), 1 + 2)  # and two of gRPC
        for method, path, kind, status in (
            ("GET", "/ping", INFERENCE, 200),
            ("POST", "/predictions/m/1.0", INFERENCE, 200),
            ("GET", "/models/m/1.0", MANAGEMENT, 200),
            ("GET", "/models/m/all", MANAGEMENT, 200),
            ("PUT", "/models/m/1.0/set-default", MANAGEMENT, 200),
            ("OPTIONS", "/models/m", MANAGEMENT, 200),
            ("OPTIONS", "/predictions/m", INFERENCE, 200),
            ("POST", "/models/m/invoke", INFERENCE, 200),
            ("POST", "/invocations?model_name=m", INFERENCE, 200),
            ("POST", "/m/predict", INFERENCE, 200),
            ("GET", "/models/predict", MANAGEMENT, 404),
            ("GET", "/workflows/predict", MANAGEMENT, 404),
            ("GET", "/token/predict", MANAGEMENT, 404),
            ("GET", "/v1/models", MANAGEMENT, 200),
            ("GET", "/v1/models/m", MANAGEMENT, 200),
            ("DELETE", "/v1/models/m", MANAGEMENT, 405),
            ("POST", "/v1/models/m:predict", INFERENCE, 200),
            ("POST", "/v2/models/m/infer", INFERENCE, 200),
            ("GET", "/v2/models/m/ready", INFERENCE, 200),
            ("GET", "/workflows", MANAGEMENT, 200),
            ("GET", "/workflows/w", MANAGEMENT, 404),
            ("DELETE", "/workflows/w", MANAGEMENT, 404),
            ("POST", "/wfpredict/w", INFERENCE, 404),
            ("GET", "/WfPredict/w/x", INFERENCE, 404),
            ("GET", "/nowhere", INFERENCE, 404),
            ("GET", "/token?type=inference", API, 200),
        ):
            for presented in TokenKind:
                expected = status if presented is kind else 400
                answer = server.request(method, path, server.key(presented), role=Role.INFERENCE)
                self.assertEqual(answer.status, expected, (method, path, presented))
        self.assertEqual(server.request("GET", "/metrics", role=Role.INFERENCE).status, 200)

    def test_metrics_behind_a_key(self) -> None:
        """Where inference and management share an address which is not the metrics', its metrics need a key."""
        one = "http://127.0.0.1:8080"
        server = self.server(inference_address=one, management_address=one)
        self.assertEqual(server.request("GET", "/metrics", role=Role.INFERENCE).status, 400)
        self.assertEqual(server.request("GET", "/metrics", server.key(MANAGEMENT), role=Role.INFERENCE).status, 200)
        self.assertEqual(server.request("GET", "/metrics", role=Role.METRICS).status, 200)

    def test_no_metrics(self) -> None:
        """With the metrics API off there is no listener for it, and nobody else serves it."""
        server = self.server(enable_metrics_api=False)
        self.assertEqual(len(server.clock.tcpServers), 2 + 2)  # and two of gRPC
        self.assertEqual(server.request("GET", "/metrics", server.key(INFERENCE), role=Role.INFERENCE).status, 404)
