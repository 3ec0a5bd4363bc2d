# SPDX-License-Identifier: Apache-2.0
"""Tests for an application's authorizer on a server in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed

from tests.web.authorizer_case import BASIC, CREDENTIALS, AuthorizerCase
from tests.web.authorizers import ALICE, UNKNOWN, Saying
from twisted_serve.endpoints import Context, Endpoint, EndpointAnswer, EndpointRequest
from twisted_serve.interfaces import AccessRequest, Operation, Principal, Refusal, TokenKind
from twisted_serve.service import Dependencies
from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.web.http.site import ServeSite


class QuestionTests(AuthorizerCase):
    """What an authorizer is asked, and who is named."""

    def test_question(self) -> None:
        """It has operation, scope, headers, address, method and path."""
        authorizer = Saying()
        server = self.serve(authorizer)
        answer = server.request("POST", "/predictions/m/1.0/x", headers={"Authorization": BASIC}, body=b"1")
        self.assertEqual((answer.status, answer.body), (200, b"1"))
        [asked] = authorizer.asked
        self.assertEqual(asked.operation, Operation.PREDICT)
        self.assertEqual(asked.scope, TokenKind.INFERENCE)
        self.assertEqual(asked.authorization, (BASIC.encode(),))
        self.assertEqual((asked.method, asked.segments), ("POST", ("predictions", "m", "1.0", "x")))
        self.assertTrue(hasattr(asked.peer, "host"))
        self.assertNotIn(CREDENTIALS, repr(asked))

    def test_operations(self) -> None:
        """The method counts."""
        authorizer = Saying()
        server = self.serve(authorizer)
        for method, path in (
            ("GET", "/models"),
            ("POST", "/models"),
            ("GET", "/models/m"),
            ("PUT", "/models/m?min_worker=1"),
            ("DELETE", "/models/nothing"),
            ("PATCH", "/models/m"),
            ("PUT", "/models/m/1.0/set-default"),
            ("DELETE", "/models/m/set-default"),
            ("GET", "/nothing"),
            ("OPTIONS", "/predictions/m"),
            ("GET", "/explanations/m"),
            ("GET", "/ping"),
            ("GET", "/metrics"),
        ):
            server.request(method, path)
        self.assertEqual(
            [(asked.operation, asked.scope.value) for asked in authorizer.asked],
            [
                (Operation.LIST_MODELS, "management"),
                (Operation.REGISTER_MODEL, "management"),
                (Operation.DESCRIBE_MODEL, "management"),
                (Operation.SCALE_MODEL, "management"),
                (Operation.UNREGISTER_MODEL, "management"),
                (None, "management"),
                (Operation.SET_DEFAULT_VERSION, "management"),
                (Operation.UNREGISTER_MODEL, "management"),
                (None, "inference"),
                (Operation.INSPECT_MODELS, "inference"),
                (Operation.EXPLAIN, "inference"),
                (Operation.CHECK_HEALTH, "inference"),
                (Operation.SCRAPE_METRICS, "management"),
            ],
        )

    def test_principal(self) -> None:
        """It is in the access log, and a header for the handler, which no spelling of a client's header replaces."""
        server = self.serve(Saying())
        spoofed = b"principal: root\r\nPrincipal: root\r\nPRINCIPAL: root\r\n"
        server.connect().send(self.post(b"1", spoofed + f"Authorization: {BASIC}\r\n".encode()))
        [headers] = self.jobs(server)
        self.assertEqual(
            {name: value for name, value in headers.items() if name.lower() == "principal"}, {"principal": "alice"}
        )
        self.assertNotIn("authorization", {name.lower() for name in headers})
        self.assertTrue(any(line.endswith("200 0 principal=alice") for line in self.lines), self.lines)

    def test_unicode_name(self) -> None:
        """A name of any language reaches the handler, and a blank or a quote forges nothing."""
        name = 'Ålice "x" 李'
        server = self.serve(Saying(lambda _asked: Principal(name)))
        self.assertEqual(server.request("POST", "/predictions/m", body=b"1").status, 200)
        self.assertEqual(self.jobs(server)[0]["principal"], name)

    def test_header_without_authorizer(self) -> None:
        """Without an authorizer a header of this name is the client's, as in TorchServe."""
        server = MemoryServer({"disable_token_authorization": True}, models={"m": {}})
        self.addCleanup(server.close)
        server.request("POST", "/predictions/m", headers={"principal": "me"}, body=b"1")
        self.assertIn(("principal", "me"), [(name.lower(), value) for name, value in self.jobs(server)[0].items()])

    def test_plugin(self) -> None:
        """The endpoint of a plug-in gets the principal."""
        requests: list[EndpointRequest] = []

        def answer(request: EndpointRequest, _context: Context) -> EndpointAnswer:
            requests.append(request)
            return EndpointAnswer(b"")

        server = self.serve(Saying(), endpoints=[Endpoint("plugged", "inference", answer)])
        server.request("GET", "/plugged", headers={"Authorization": BASIC})
        [request] = requests
        self.assertEqual(request.principal, "alice")
        self.assertNotIn("authorization", request.headers)

    def test_once(self) -> None:
        """A request with a body is one question, though its body comes later."""
        authorizer = Saying()
        server = self.serve(authorizer)
        connection = server.connect()
        connection.send(self.post(b"", length=2))
        connection.send(b"1")
        connection.send(b"2" + self.post(b"3"))
        self.assertEqual(self.statuses(connection), [200, 200])
        self.assertEqual(len(authorizer.asked), 2)

    def test_coroutine(self) -> None:
        """It may be a coroutine function."""

        async def authorize(_asked: AccessRequest) -> Principal:
            return await succeed(ALICE)

        self.assertEqual(self.serve(Saying(authorize)).request("GET", "/ping").status, 200)


class KeysTests(AuthorizerCase):
    """An authorizer replaces keys."""

    def test_no_keys(self) -> None:
        """There is no key file, no key, and no route to replace one."""
        server = self.serve(Saying())
        self.assertFalse(server.key_file.exists())
        self.assertIsNone(server.server.keys)
        self.assertEqual(server.server.secrets, ())
        unguarded = MemoryServer({"disable_token_authorization": True})
        self.addCleanup(unguarded.close)
        path = "/token?type=management"
        here, there = server.request("GET", path), unguarded.request("GET", path)
        self.assertEqual((here.status, here.body), (there.status, there.body))
        self.assertTrue(any("tests.web.authorizers.Saying" in line for line in self.lines))

    def test_tokens_disabled(self) -> None:
        """The setting that disables tokens does not disable the authorizer."""
        server = self.serve(Saying(lambda _asked: UNKNOWN), options={"disable_token_authorization": True})
        self.assertEqual(server.request("GET", "/ping").status, 401)
        self.assertFalse(any("disabled" in line for line in self.lines))

    def test_public(self) -> None:
        """Probes and the description are public; metrics are asked about."""
        authorizer = Saying(lambda _asked: Refusal(403))
        server = self.serve(authorizer)
        for path in ("/livez", "/readyz", "/api-description", "/docs"):
            self.assertEqual(server.request("GET", path).status, 200)
        self.assertEqual(authorizer.asked, [])
        self.assertEqual(server.request("GET", "/metrics").status, 403)

    def test_http2(self) -> None:
        """No other protocol is offered that would go another way."""
        site: ServeSite = self.serve(Saying()).server.site_of(Role.INFERENCE)
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])

    def test_not_an_authorizer(self) -> None:
        """Another object is refused, and its class named."""
        with self.assertRaisesRegex(TypeError, "authorizer must provide IAuthorizer, str does not"):
            Dependencies(authorizer="Basic")  # type: ignore[arg-type]
        for seconds in (0, -1.0, float("inf"), float("nan")):
            with self.assertRaisesRegex(ValueError, "authorizer_timeout"):
                Dependencies(authorizer_timeout=seconds)


class RefusalTests(AuthorizerCase):
    """Requests that are not admitted."""

    def test_challenge(self) -> None:
        """A client learns how to authenticate; the refusal is counted and logged."""
        server = self.serve(Saying(lambda _asked: UNKNOWN))
        answer = server.request("POST", "/models?url=x", headers={"Authorization": BASIC})
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers["www-authenticate"], 'Basic realm="models"')
        self.assertEqual(answer.json, {"code": 401, "type": "UnauthorizedException", "message": "Not authorized."})
        self.assertIn("AUDIT Refused POST /models from 127.0.0.1: 401 by the authorizer", self.lines)
        self.assertFalse(any(CREDENTIALS in line for line in self.lines))

    def test_status(self) -> None:
        """A refusal may have another status and message, and no challenge."""
        server = self.serve(Saying(lambda _asked: Refusal(403, message="Ask Bob.")))
        answer = server.request("POST", "/predictions/m", body=b"1")
        self.assertEqual((answer.status, answer.json["message"]), (403, "Ask Bob."))
        self.assertNotIn("www-authenticate", answer.headers)
        self.assertEqual(self.jobs(server), [])

    def test_refusals_validate(self) -> None:
        """An answer that cannot be sent is not made."""
        for wrong in (
            {"status": 200},
            {"status": 401},
            {"status": 503},
            {"status": "403"},
            {"challenge": "Basic\r\nSet-Cookie: a=b"},
            {"challenge": ""},
            {"message": "é"},
        ):
            with self.assertRaises(ValueError):
                Refusal(**wrong)
        for name in ("", "a\nb", "a\x1bb", "a" * 257, None, b"alice"):
            with self.assertRaises(ValueError):
                Principal(name)  # type: ignore[arg-type]

    def test_body(self) -> None:
        """Of a refused request no byte of the body is kept, however long it is said to be."""
        server = self.serve(Saying(lambda _asked: UNKNOWN))
        connection = server.connect()
        connection.send(self.post(b"x" * 1000, b"Expect: 100-continue\r\n", length=10**12))
        self.assertEqual(self.statuses(connection), [401])
        server.advance(6)
        self.assertFalse(connection.open)

    def test_errors(self) -> None:
        """One that raises, or answers anything else, is an error of the server; the client learns no more."""

        def raises(_asked: AccessRequest) -> Any:
            raise KeyError("the directory is down")

        async def raises_later(_asked: AccessRequest) -> Any:
            raise KeyError("the directory is down")

        for answer in (raises, raises_later):
            server = self.serve(Saying(answer))
            for body in (b"", b"1"):
                refused = server.request("POST", "/predictions/m", body=body)
                self.assertEqual((refused.status, refused.json["message"]), (500, "Internal server error."))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 4)
        nonsense = [None, True, "alice", ("alice",), Principal, object()]
        while nonsense:
            server = self.serve(Saying(lambda _asked: nonsense.pop()))
            self.assertEqual(server.request("POST", "/predictions/m", body=b"1").status, 500)
            self.assertEqual(self.jobs(server), [])
        self.assertTrue(any("expected Principal or Refusal" in line for line in self.lines))

    def test_no_credentials_in_logs(self) -> None:
        """An authorizer that raises with the header, or with the password in it, does not bring them into the log."""
        for text in (BASIC, f"bad {CREDENTIALS}", "no user alice:correct horse", "wrong password correct horse"):

            def raises(_asked: AccessRequest, text: str = text) -> Any:
                raise ValueError(text)

            server = self.serve(Saying(raises))
            answer = server.request("GET", "/ping", headers={"Authorization": BASIC})
            self.assertEqual(answer.status, 500)
        said = "\n".join(self.lines)
        self.assertNotIn(CREDENTIALS, said)
        self.assertNotIn("correct horse", said)
        self.assertEqual(said.count("The authorizer has failed"), 4)
        self.assertIn("ValueError: <redacted>", said)
