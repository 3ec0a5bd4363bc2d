# SPDX-License-Identifier: Apache-2.0
"""Tests for an application's authorizer on a server in memory."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from tests.web.authorizers import ALICE, UNKNOWN, Saying
from tests.web.site_case import Client
from twisted_serve.endpoints import Context, Endpoint, EndpointAnswer, EndpointRequest
from twisted_serve.interfaces import AccessRequest, Operation, Principal, Refusal, TokenKind
from twisted_serve.service import Dependencies
from twisted_serve.testing.server import MemoryConnection, MemoryServer, Role
from twisted_serve.web.http.site import ServeSite

CREDENTIALS = b64encode(b"alice:correct horse").decode()
BASIC = f"Basic {CREDENTIALS}"


class AuthorizerCase(SynchronousTestCase):
    """A server with an authorizer that answers when the test says so, unless it is told to answer at once."""

    def serve(self, authorizer: Saying, **more: Any) -> MemoryServer:
        server = MemoryServer(
            more.pop("options", None), models={"m": {}}, dependencies={"authorizer": authorizer}, **more
        )
        self.addCleanup(server.close)
        return server

    def setUp(self) -> None:
        self.cancelled = 0
        self.answers: list[Deferred[Any]] = []
        self.slow = Saying(self.later)
        self.lines: list[str] = []

        @implementer(ILogObserver)
        def heard(event: LogEvent) -> None:
            self.lines.append(formatEvent(event))
            if "log_failure" in event:
                self.lines.append(event["log_failure"].getTraceback())

        globalLogPublisher.addObserver(heard)
        self.addCleanup(globalLogPublisher.removeObserver, heard)

    def later(self, _asked: AccessRequest) -> Deferred[Any]:
        def cancel(_answer: object) -> None:
            self.cancelled += 1

        answer: Deferred[Any] = Deferred(cancel)
        self.answers.append(answer)
        return answer

    def post(self, body: bytes, headers: bytes = b"", length: int | None = None) -> bytes:
        sent = len(body) if length is None else length
        return b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n%s" % (headers, sent, body)

    def statuses(self, connection: MemoryConnection) -> list[int]:
        return [int(piece.split(b" ", 1)[0]) for piece in connection.received.split(b"HTTP/1.1 ")[1:]]

    def jobs(self, server: MemoryServer) -> list[dict[str, str]]:
        """Return the headers of all requests that workers got."""
        return [dict(job.headers) for worker in server.provider.workers for batch in worker.batches for job in batch]


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


class WaitingTests(AuthorizerCase):
    """An authorizer that answers later."""

    def test_body_waits(self) -> None:
        """The client is told to continue, and its body read, after the answer."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"", b"Expect: 100-continue\r\n", length=3))
        self.assertEqual(connection.received, b"")
        self.answers[0].callback(ALICE)
        self.assertEqual(self.statuses(connection), [100])
        connection.send(b"abc")
        self.assertEqual(self.statuses(connection), [100, 200])
        self.assertTrue(connection.received.endswith(b"abc"))

    def test_refused_later(self) -> None:
        """A refusal that comes later is the same; what the client has sent meanwhile is dropped."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"x" * 1000, length=100_000))
        connection.send(b"x" * 30_000)
        self.answers[0].callback(UNKNOWN)
        self.assertEqual(self.statuses(connection), [401])
        connection.send(b"x" * 69_000 + self.post(b"1"))
        self.assertEqual(self.statuses(connection), [401])
        self.assertEqual(len(self.slow.asked), 1)

    def test_reading_is_bounded(self) -> None:
        """Of a body that is sent without waiting, little is read; the rest waits for the answer."""
        server = self.serve(self.slow)
        connection = server.connect()
        for _ in range(100):
            connection.send((self.post(b"", length=1_000_000)) if not self.slow.asked else b"x" * 10_000)
        self.assertGreater(connection.unread, 900_000)
        self.answers[0].callback(ALICE)
        connection.send(b"x" * 10_000)
        self.assertEqual(self.statuses(connection), [200])
        self.assertTrue(connection.received.endswith(b"x" * 1_000_000))

    def test_chunked(self) -> None:
        """A chunked body waits, too."""
        server = self.serve(self.slow)
        connection = server.connect()
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send(head + b"3\r\nabc\r\n")
        connection.send(b"0\r\n\r\n" + self.post(b"2"))
        self.assertEqual(connection.received, b"")
        self.answers[0].callback(ALICE)
        self.assertEqual(self.statuses(connection), [200])
        self.answers[1].callback(ALICE)
        self.assertEqual(self.statuses(connection), [200, 200])

    def test_pipelined(self) -> None:
        """Requests on one connection are asked about and answered in order, with bodies and without."""
        server = self.serve(self.slow)
        connection = server.connect()
        get = b"GET /predictions/m HTTP/1.1\r\nHost: h\r\n\r\n"
        connection.send(self.post(b"first") + get + self.post(b"third") + get)
        for number in range(4):
            self.assertEqual(len(self.slow.asked), number + 1)
            self.assertEqual(self.statuses(connection), [200] * number)
            self.answers[number].callback(ALICE)
        self.assertEqual(self.statuses(connection), [200] * 4)
        self.assertLess(connection.received.index(b"first"), connection.received.index(b"third"))

    def test_never(self) -> None:
        """One that never answers is a 503 after its time, and its Deferred is cancelled."""
        server = self.serve(self.slow)
        for sent in (b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", self.post(b"", length=5)):
            connection = server.connect()
            connection.send(sent)
            server.advance(29.9)
            self.assertEqual(connection.received, b"")
            server.advance(0.2)
            self.assertEqual(self.statuses(connection), [503])
        self.assertEqual(self.cancelled, 2)
        self.assertIn("The authorizer has not answered within 30 s", self.lines)

    def test_too_late(self) -> None:
        """An answer after its time changes nothing, nor does a Deferred that ignores being cancelled."""
        stubborn: Deferred[Any] = Deferred(lambda _answer: None)
        stubborn.addErrback(lambda _failure: Deferred())
        server = self.serve(Saying(lambda _asked: stubborn))
        connection = server.connect()
        connection.send(self.post(b"1"))
        server.advance(31)
        self.assertEqual(self.statuses(connection), [503])
        connection.leave()
        server.advance(100)
        self.assertEqual(self.jobs(server), [])

    def test_client_leaves(self) -> None:
        """When the client disconnects, its question is cancelled, once, and nothing is logged as an error."""
        server = self.serve(self.slow)
        for sent in (b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", self.post(b"1", length=5)):
            connection = server.connect()
            connection.send(sent)
            connection.leave()
        self.assertEqual(self.cancelled, 2)
        for answer in self.answers:
            answer.cancel()
        server.advance(100)
        self.assertEqual(self.cancelled, 2)
        self.assertEqual(self.jobs(server), [])
        self.assertFalse(any("authorizer" in line for line in self.lines[-5:]), self.lines)

    def test_canceller_raises(self) -> None:
        """A canceller that raises harms neither the connection nor the server."""

        def cancel(_answer: object) -> None:
            raise KeyError("cancel")

        server = self.serve(Saying(lambda _asked: Deferred(cancel)))
        for leave in (True, False):
            connection = server.connect()
            connection.send(self.post(b"1"))
            if leave:
                connection.leave()
            else:
                server.advance(31)
                self.assertEqual(self.statuses(connection), [503])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_deadlines(self) -> None:
        """The time of the authorizer is not the client's: neither head, body nor idle timeout end the wait."""
        options = {"header_timeout": 2, "body_timeout": 3, "keepalive_timeout": 4}
        server = self.serve(self.slow, options=options)
        connection = server.connect()
        connection.send(self.post(b"1", length=2))
        server.advance(20)
        self.assertEqual(connection.received, b"")
        self.answers[0].callback(ALICE)
        server.advance(2.9)
        self.assertEqual(connection.received, b"")
        # From now on the client has the usual time for its body.
        server.advance(0.2)
        self.assertEqual(self.statuses(connection), [408])

    def test_slow_reader(self) -> None:
        """A client that reads no responses for a while gets nothing done meanwhile."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"1"))
        connection.stop_reading()
        connection.read_on()
        self.assertEqual(self.jobs(server), [])
        connection.stop_reading()
        self.answers[0].callback(ALICE)
        connection.read_on()
        self.assertEqual(self.statuses(connection), [200])

    def test_many(self) -> None:
        """Many connections may wait; nothing is left of them when they end."""
        server = self.serve(self.slow)
        connections = [server.connect() for _ in range(300)]
        before = len(server.clock.getDelayedCalls())
        for connection in connections:
            connection.send(self.post(b"x" * 20_000, length=10**6))
        self.assertEqual(len(self.slow.asked), 300)
        for number, connection in enumerate(connections):
            if number % 3 == 0:
                connection.leave()
            elif number % 3 == 1:
                self.answers[number].callback(UNKNOWN)
        server.advance(31)
        self.assertEqual(self.cancelled, 200)
        for connection in connections:
            connection.leave()
        self.assertLessEqual(len(server.clock.getDelayedCalls()), before)

    def test_stop(self) -> None:
        """A stop does not wait for an authorizer longer than for other requests."""
        server = self.serve(self.slow)
        connection = server.connect()
        connection.send(self.post(b"1"))
        stopped = server.server.stopService()
        server.advance(server.options.shutdown_timeout + 10)
        self.successResultOf(stopped)
        self.assertEqual(self.cancelled, 1)


class MountedAuthorizerTests(AuthorizerCase):
    """A resource in an application's own site, which has read the body."""

    def mounted(self, authorizer: Saying) -> tuple[MemoryServer, Callable[[bytes], Client]]:
        server = self.serve(authorizer)
        root = Resource()
        root.putChild(b"ml", server.server.resource(Role.INFERENCE))
        site = Site(root, reactor=server.clock)

        def send(sent: bytes) -> Client:
            client = Client(site)
            client.send(sent.replace(b"/predictions", b"/ml/predictions"))
            return client

        return server, send

    def test_admitted(self) -> None:
        """Nothing is done before the answer; then it is a request of the principal, asked about once."""
        server, send = self.mounted(self.slow)
        client = send(self.post(b"1", b"Principal: root\r\n"))
        self.assertEqual(self.jobs(server), [])
        self.answers[0].callback(ALICE)
        self.assertIn(b" 200 OK", client.received)
        [headers] = self.jobs(server)
        self.assertEqual([value for name, value in headers.items() if name.lower() == "principal"], ["alice"])
        [asked] = self.slow.asked
        self.assertEqual((asked.operation, asked.segments), (Operation.PREDICT, ("predictions", "m")))

    def test_refused(self) -> None:
        """A refusal is that of a listener, and comes before what is wrong with the body."""
        server, send = self.mounted(Saying(lambda _asked: UNKNOWN))
        for headers in (b"", b"Content-Encoding: nonsense\r\n"):
            client = send(self.post(b"1", headers))
            self.assertIn(b" 401 ", client.received)
            self.assertIn(b'Basic realm="models"', client.received)
        self.assertEqual(self.jobs(server), [])

    def test_client_leaves(self) -> None:
        """When the client disconnects, or for too long, the question is cancelled."""
        server, send = self.mounted(self.slow)
        send(self.post(b"1")).transport.loseConnection()
        self.assertEqual(self.cancelled, 1)
        client = send(self.post(b"1"))
        server.advance(31)
        self.assertIn(b" 503 ", client.received)
        self.assertEqual((self.cancelled, self.jobs(server)), (2, []))
