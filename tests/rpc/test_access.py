# SPDX-License-Identifier: Apache-2.0
"""Tests for the keys of gRPC: every method with every key, on every kind of listener."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.web.authorizers import ALICE, UNKNOWN, Saying
from twisted_serve.auth.gate import AUTHORIZATION_FAILED
from twisted_serve.auth.scopes import required
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.interfaces import AccessRequest, Operation, Refusal
from twisted_serve.rpc.descriptors import method_of, service_descriptors
from twisted_serve.rpc.messages import HealthCheckRequest, PredictionsRequest
from twisted_serve.rpc.methods import HEALTH, INFERENCE, KSERVE, MANAGEMENT, SERVICES, paths_of
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.server import MemoryServer, Role

PING = f"/{INFERENCE}/Ping"
PREDICT = f"/{INFERENCE}/Predictions"
CHECK = f"/{HEALTH}/Check"

EVERYTHING = {"grpc_reflection": True, "ts_open_inference_protocol": True, "enable_model_api": True}

#: Listeners: separate ones, and one for both roles.
LISTENERS = (Role.INFERENCE, Role.MANAGEMENT, Role.INFERENCE | Role.MANAGEMENT)

#: Paths that are no methods, some of which look like open ones.
STRANGE = (
    "/",
    "//",
    "*",
    "/grpc.health.v1.Health",
    "/grpc.health.v1.Health/check",
    "/grpc.health.v1.Health/Check/more",
    "/grpc.health.v1.Health/../x/y",
    "/grpc.health.v1/Health/Check",
    "/x.y/Z",
    f"/{INFERENCE}/Nothing",
    f"/{MANAGEMENT}/%zz",
    "/ping",
    "/livez",
)


def all_paths() -> Iterator[tuple[str, Role, Operation | None]]:
    """Yield each method with the roles whose listeners have it."""
    for name, service in SERVICES.items():
        for path, operation in paths_of(name).items():
            yield path, service.roles, operation


class MethodTests(SynchronousTestCase):
    """The list of methods, and that of the descriptors."""

    def test_descriptors(self) -> None:
        """Each method of the descriptors is in the list, and no other."""
        described = {
            f"/{name}/{method}" for name, service in service_descriptors().items() for method in service.methods_by_name
        }
        self.assertEqual({path for path, _roles, _operation in all_paths()}, described)

    def test_streaming(self) -> None:
        """No method streams to the server alone, which no contract provides for."""
        for path, _roles, _operation in all_paths():
            method = method_of(path)
            self.assertFalse(method.client_streaming and not method.server_streaming, path)


class TruthTests(SynchronousTestCase):
    """Every path with every key on every listener: refused exactly where the key is not the one of the operation."""

    def setUp(self) -> None:
        self.servers = {
            "apart": MemoryServer(EVERYTHING, models={"m": {}}),
            "together": MemoryServer(
                {**EVERYTHING, "grpc_inference_port": 7000, "grpc_management_port": 7000}, models={"m": {}}
            ),
        }
        for server in self.servers.values():
            self.addCleanup(server.close)

    def refused(self, server: MemoryServer, role: Role, path: str, key: str | None) -> bool:
        """Return whether a call is refused, which none is after its first message was read."""
        connection = server.grpc(role)
        call = connection.begin(path, key)
        refused = call.code == Code.PERMISSION_DENIED
        if refused:
            self.assertEqual((call.text, call.messages), (AUTHORIZATION_FAILED, []))
        connection.leave()
        return refused

    def needed(self, path: str, here: Role) -> TokenKind | None:
        """Return the key that a path needs on a listener with these roles."""
        own = TokenKind.INFERENCE if here & Role.INFERENCE else TokenKind.MANAGEMENT
        for method, roles, operation in all_paths():
            if method == path and roles & here:
                return own if operation is None else required(operation)
        return own

    def test_every_key(self) -> None:
        """Each method of each service, and paths that are none, with each key."""
        tried = 0
        for listener in LISTENERS:
            server = self.servers["together" if listener == LISTENERS[2] else "apart"]
            role = Role.INFERENCE if listener & Role.INFERENCE else Role.MANAGEMENT
            keys: list[tuple[TokenKind | None, str | None]] = [(kind, server.key(kind)) for kind in TokenKind]
            keys += [(None, None), (None, "x" * 32), (None, "")]
            for path in (*(path for path, *_ in all_paths()), *STRANGE):
                needed = self.needed(path, listener)
                for kind, key in keys:
                    wanted = needed is not None and kind is not needed
                    self.assertEqual(self.refused(server, role, path, key), wanted, f"{listener} {path} {kind} {key}")
                    tried += 1
        self.assertGreater(tried, 600)

    @given(st.sampled_from([CHECK, f"/{HEALTH}/Watch", f"/{HEALTH}/List"]), st.data())
    def test_near_open_methods(self, path: str, data: st.DataObject) -> None:
        """A path that is nearly that of an open method answers nothing without a key."""
        at = data.draw(st.integers(1, len(path)))
        near = path[:at] + data.draw(st.sampled_from(["", "/", ".", "%2f", "x", "?", "//", "\t"])) + path[at + 1 :]
        connection = self.servers["apart"].grpc()
        call = connection.begin(near)
        if near != path:
            self.assertNotEqual(call.code, Code.OK)
            self.assertEqual(call.messages, [])
        connection.leave()

    def test_open(self) -> None:
        """Health is all that is open; ``Ping`` too with ``token_exempt_ping``."""
        opened = {
            path
            for path, roles, _operation in all_paths()
            if not self.refused(self.servers["apart"], Role(roles.value & -roles.value), path, None)
        }
        self.assertEqual(opened, set(paths_of(HEALTH)))
        with MemoryServer({"token_exempt_ping": True}) as server:
            self.assertFalse(self.refused(server, Role.INFERENCE, PING, None))
            self.assertTrue(self.refused(server, Role.INFERENCE, PREDICT, None))

    def test_rotated_and_expired(self) -> None:
        """A key that was replaced opens nothing, and neither does one that has expired; running calls go on."""
        server = self.servers["apart"]
        old = server.key(TokenKind.INFERENCE)
        connection = server.grpc()
        running = connection.begin(f"/{INFERENCE}/StreamPredictions2", old)
        new = server.rotate()
        self.assertEqual(connection.call(PING, b"", old).code, Code.PERMISSION_DENIED)
        self.assertEqual(connection.call(PING, b"", new).code, Code.OK)
        server.advance(3600)
        self.assertEqual(connection.call(PING, b"", new).code, Code.PERMISSION_DENIED)
        running.half_close()
        self.assertEqual(running.code, Code.OK)

    def test_several_headers(self) -> None:
        """Two values are refused, also if one is right; the scheme is written in any case."""
        server = self.servers["apart"]
        key = server.key(TokenKind.INFERENCE)
        connection = server.grpc()

        def code(*values: str) -> int | None:
            return connection.call(PING, b"", metadata=[("authorization", value) for value in values]).code

        self.assertEqual(code(f"Bearer {key}"), Code.OK)
        self.assertEqual(code(f"bearer   {key}"), Code.OK)
        for values in ((f"Bearer {key}", "Bearer x"), ("Bearer x", f"Bearer {key}"), (f"Bearer {key}",) * 2):
            self.assertEqual(code(*values), Code.PERMISSION_DENIED)
        for value in (key, f"Basic {key}", f"Bearer{key}", f"Bearer {key} x", "Bearer"):
            self.assertEqual(code(value), Code.PERMISSION_DENIED, value)

    def test_audit(self) -> None:
        """Refusals are counted and logged with the method, by the rules of HTTP; no key is in a line."""
        server = self.servers["apart"]
        key = server.key(TokenKind.MANAGEMENT)
        with capturedLogs() as logs:
            server.grpc().call(f"/x/{key}", b"", key)
        [line] = [each for each in logs if "reason" in each and "kind" in each]
        self.assertEqual((line["method"], line["peer"], line["kind"]), ("gRPC", "127.0.0.1", "inference"))
        self.assertEqual(line["path"], "/x/<redacted>")
        self.assertNotIn(key, repr([each for each in logs if "path" in each or "line" in each]))
        metrics = server.request("GET", "/metrics", role=Role.METRICS).body.decode()
        self.assertIn('ts_token_refused_total{kind="inference",reason="wrong_kind",} 1.0', metrics)

    def test_health_of_models(self) -> None:
        """An open method tells of models only those who may know them; a wrong key is recorded there, too."""
        server = self.servers["apart"]
        connection = server.grpc()
        message = HealthCheckRequest(service="m")
        self.assertEqual(connection.call(CHECK, message).code, Code.NOT_FOUND)
        self.assertEqual(connection.call(CHECK, message, server.key(TokenKind.INFERENCE)).code, Code.OK)
        with capturedLogs() as logs:
            self.assertEqual(connection.call(CHECK, message, "x" * 32).code, Code.NOT_FOUND)
        self.assertEqual([each["kind"] for each in logs if "reason" in each and "kind" in each], ["inference"])
        with MemoryServer({"disable_token_authorization": True}, models={"m": {}}) as unlocked:
            self.assertEqual(unlocked.grpc().call(CHECK, message).code, Code.OK)


class AuthorizerTests(SynchronousTestCase):
    """Calls to a server with an application's authorizer."""

    def serve(self, answer: Any, **options: Any) -> MemoryServer:
        """Start a server whose authorizer gives an answer."""
        self.saying = Saying(answer)
        server = MemoryServer(options, models={"m": {}}, dependencies={"authorizer": self.saying})
        self.addCleanup(server.close)
        return server

    def test_asked_once(self) -> None:
        """The authorizer is asked about operation, scope and credentials, once and before any message."""
        server = self.serve(lambda _asked: ALICE)
        connection = server.grpc()
        call = connection.begin(PREDICT, "secret")
        [asked] = self.saying.asked
        self.assertEqual((asked.operation, asked.scope), (Operation.PREDICT, TokenKind.INFERENCE))
        self.assertEqual((asked.authorization, asked.method), ((b"Bearer secret",), "POST"))
        self.assertEqual(asked.segments, (INFERENCE, "Predictions"))
        with capturedLogs() as logs:
            call.send(PredictionsRequest(model_name="m", input={"data": b"x"}), end=True)
        self.assertEqual(call.code, Code.OK)
        self.assertEqual(len(self.saying.asked), 1)
        self.assertTrue([each for each in logs if "principal=alice" in each.get("line", "")])

    def test_operations(self) -> None:
        """Each method is asked about with the operation that it has by HTTP; open ones are not asked about."""
        server = self.serve(lambda _asked: UNKNOWN, **EVERYTHING)
        for path, roles, operation in all_paths():
            self.saying.asked.clear()
            call = server.grpc(Role(roles.value & -roles.value)).begin(path)
            if operation is Operation.PROBE:
                self.assertEqual(self.saying.asked, [])
                continue
            [asked] = self.saying.asked
            self.assertIs(asked.operation, operation)
            self.assertEqual((call.code, call.text), (Code.UNAUTHENTICATED, "Not authorized."))

    def test_refusals(self) -> None:
        """The code of a refusal is that of its status; an error of the authorizer admits nothing."""
        for answer, code in (
            (Refusal(403), Code.PERMISSION_DENIED),
            (Refusal(404, message="No such thing."), Code.NOT_FOUND),
            (Refusal(429), Code.RESOURCE_EXHAUSTED),
            (None, Code.INTERNAL),
        ):
            server = self.serve(lambda _asked, answer=answer: answer)
            self.assertEqual(server.grpc().call(PING, b"").code, code)

    def test_waiting(self) -> None:
        """A message is not read while the authorizer thinks; a client that leaves cancels the question."""
        cancelled: list[bool] = []
        questions: list[Deferred[Any]] = []

        def ask(_asked: AccessRequest) -> Deferred[Any]:
            questions.append(Deferred(lambda _: cancelled.append(True)))
            return questions[-1]

        server = self.serve(ask)
        connection = server.grpc()
        call = connection.call(PREDICT, PredictionsRequest(model_name="m", input={"data": b"x"}))
        self.assertIsNone(call.code)
        questions[0].callback(ALICE)
        connection.pump()
        self.assertEqual(call.code, Code.OK)
        gone = connection.call(PING, b"")
        gone.cancel()
        self.assertEqual(cancelled, [True])
        late = connection.call(PING, b"")
        server.advance(31)
        connection.pump()
        self.assertEqual(late.code, Code.UNAVAILABLE)


class OpenTests(SynchronousTestCase):
    """A server without token authorization."""

    def test_everything(self) -> None:
        """Nothing is refused, and ``authorization`` is the model's to check."""
        with MemoryServer({"disable_token_authorization": True, **EVERYTHING}, models={"m": {}}) as server:
            for path, roles, _operation in all_paths():
                call = server.grpc(Role(roles.value & -roles.value)).begin(path)
                self.assertNotEqual(call.code, Code.PERMISSION_DENIED, path)

    def test_unknown(self) -> None:
        """Services that are switched off, and those of the other listener, are unknown."""
        with MemoryServer({"disable_token_authorization": True}) as server:
            for path in (f"/{MANAGEMENT}/ListModels", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
                self.assertEqual(server.grpc().begin(path).code, Code.UNIMPLEMENTED)
            self.assertEqual(server.grpc(Role.MANAGEMENT).begin(f"/{KSERVE}/ServerLive").code, Code.UNIMPLEMENTED)
