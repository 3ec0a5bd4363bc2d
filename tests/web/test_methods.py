# SPDX-License-Identifier: Apache-2.0
"""Methods: no safe one changes anything, none is taken for another, and a refusal says which there are."""

from __future__ import annotations

from tests.web.routes.management_case import ManagementTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.endpoints import Endpoint
from twisted_serve.plugins.sagemaker import execution_parameters
from twisted_serve.testing.server import Answer, MemoryServer, Role

OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")

CHANGES = (
    ("POST", "/models?url=m", TokenKind.MANAGEMENT),
    ("PUT", "/models/m?min_worker=3", TokenKind.MANAGEMENT),
    ("PUT", "/models/m/1.0/set-default", TokenKind.MANAGEMENT),
    ("DELETE", "/models/m", TokenKind.MANAGEMENT),
    ("DELETE", "/models/m/1.0", TokenKind.MANAGEMENT),
    ("POST", "/workflows?url=m", TokenKind.MANAGEMENT),
    ("DELETE", "/workflows/m", TokenKind.MANAGEMENT),
    ("POST", "/token?type=inference", TokenKind.API),
    ("GET", "/token?type=inference", TokenKind.API),
)


class MethodsTests(ManagementTestCase):
    """Tests for the methods of all routes."""

    options = {"load_models": "m"}

    def setUp(self) -> None:
        super().setUp()
        self.server.add_model("m", {})
        self.server.restart()

    def ask(self, method: str, path: str, kind: TokenKind, headers: dict[str, str] | None = None) -> Answer:
        """Send a request whose method is spelled as it is given; an HTTP client would write it in upper case."""
        connection = self.server.connect(Role.MANAGEMENT)
        sent = {"Host": "h", "Authorization": f"Bearer {self.server.key(kind)}", **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        head, _, body = connection.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()).partition(b"\r\n\r\n")
        start, *fields = head.decode().split("\r\n")
        found = dict(field.lower().split(": ", 1) for field in fields)
        if "allow" in found:
            found["allow"] = found["allow"].upper()
        return Answer(int(start.split()[1]), found, body)

    def state(self) -> object:
        described = self.ask("GET", "/models/m/all", TokenKind.MANAGEMENT).json
        return self.server.keys, [(each["modelVersion"], each["minWorkers"], each["workers"]) for each in described]

    def test_head_rotates_nothing(self) -> None:
        """HEAD, whose answer would not have the new key, replaces none, and is told what does."""
        before = self.server.keys
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE"):
            answer = self.ask(method, "/token?type=inference", TokenKind.API)
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, POST"), method)
        self.assertEqual(self.server.keys, before)

    def test_safe_methods_change_nothing(self) -> None:
        """HEAD and OPTIONS of whatever changes something change nothing, nor does the wrong case of a method."""
        before = self.state()
        for method, path, kind in CHANGES:
            for other in ("HEAD", "OPTIONS", "TRACE", method.lower(), method.title()):
                self.ask(other, path, kind)
                self.assertEqual(self.state(), before, (other, path))

    def test_overrides(self) -> None:
        """A header that names another method is a header like any other."""
        before = self.state()
        for method, path, kind in CHANGES:
            for name in OVERRIDES:
                sent = "POST" if path.startswith("/models/") else "HEAD"
                self.ask(sent, path, kind, {name: method})
                self.assertEqual(self.state(), before, (name, path))

    def test_case(self) -> None:
        """Methods are case-sensitive (RFC 9110 §9.1)."""
        for method in ("get", "Get", "gET"):
            answer = self.ask(method, "/models", TokenKind.MANAGEMENT)
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD, POST"))
            self.assertEqual(self.ask(method, "/docs", TokenKind.MANAGEMENT).status, 405)
        self.assertEqual(self.ask("options", "/", TokenKind.MANAGEMENT).status, 405)

    def test_allow(self) -> None:
        """Each refusal says which methods there are (RFC 9110 §15.5.6)."""
        for method, path, allowed in (
            ("PUT", "/models", "GET, HEAD, POST"),
            ("POST", "/models/m", "DELETE, GET, HEAD, OPTIONS, PUT"),
            ("GET", "/models/m/1.0/set-default", "PUT"),
            ("PATCH", "/workflows/w", "DELETE, GET, HEAD"),
            ("POST", "/", "OPTIONS"),
            ("POST", "/v1/models/m", "GET, HEAD"),
            ("POST", "/livez", "GET, HEAD"),
        ):
            answer = self.ask(method, path, TokenKind.MANAGEMENT)
            self.assertEqual((answer.status, answer.headers.get("allow")), (405, allowed), path)

    def test_allow_where_the_api_is_off(self) -> None:
        """What is switched off is not allowed, and not said to be."""
        with MemoryServer({"enable_model_api": False}, models={"m": {}}) as server:
            key = server.key(TokenKind.MANAGEMENT)
            for method, path, allowed in (
                ("POST", "/models?url=m", "GET, HEAD"),
                ("DELETE", "/models/m", "GET, HEAD, OPTIONS, PUT"),
            ):
                answer = server.request(method, path, key)
                self.assertEqual((answer.status, answer.headers["allow"]), (405, allowed))

    def test_allow_of_endpoints(self) -> None:
        """So does an endpoint of a plug-in, as well as it knows."""
        plugged: tuple[Endpoint, ...] = (execution_parameters,)
        with MemoryServer(endpoints=plugged) as server:
            key = server.key(TokenKind.INFERENCE)
            answer = server.request("POST", "/execution-parameters", key)
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD"))
