# SPDX-License-Identifier: Apache-2.0
"""Tests for named keys by HTTP: each route with each scope, and what a key for some models can find by any spelling."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from secrets import token_bytes
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys_case import EVERYTHING, KeyedServer
from twisted_serve.auth.named.scopes import SCOPES
from twisted_serve.auth.scopes import required
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.endpoints import Endpoint, EndpointAnswer, EndpointRequest
from twisted_serve.interfaces import Operation
from twisted_serve.testing.server import Role
from twisted_serve.web.api.route import Route, Surface
from twisted_serve.web.api.surface import EVERY_ROUTE, served_routes

A, B = "http://127.0.0.1:9000", "http://127.0.0.1:9001"
SHARED = {"inference_address": A, "management_address": A, "metrics_address": B}
BOTH = Role.INFERENCE | Role.MANAGEMENT

# A model that a limited key must not learn of, and no model: of one length, and in no answer for another reason.
HIDDEN = "zqhidden"
ABSENT = "zqabsent"

MODELS: Any = {"resnet": {}, "resnet-50": {}, HIDDEN: {}}


def described(route: Route) -> str:
    """Return a path of a route that names the model ``resnet``."""
    path = route.path.replace("{model_name}", "resnet").replace("{workflow_name}", "resnet")
    return path.replace("{model_version}", "1.0").replace("{url_path}", "x/y")


def methods_of(route: Route) -> Iterator[str]:
    """Yield methods that a route takes."""
    yield route.method.upper()
    if route.any_method:
        yield from ("GET", "POST", "PATCH")


def send(server: KeyedServer, role: Role, method: str, target: str, lines: str, body: bytes = b"") -> tuple[str, bytes]:
    """Send a request as it is written, and return the status and the body without what differs each time."""
    connection = server.connect(role)
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: h\r\n{lines}{length}\r\n"
    head_of_answer, _, content = connection.send(head.encode("latin-1") + body).partition(b"\r\n\r\n")
    connection.leave()
    return head_of_answer[9:12].decode("ascii"), content


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n"


class RouteTests(SynchronousTestCase):
    """Each route of each listener with a key of each scope: let in exactly where the operation is the scope's."""

    def tried(self, server: KeyedServer, role: Role, surface: Surface) -> set[Operation]:
        """Ask each route of a listener with each scope, and return the operations that were asked for."""
        asked = set()
        for scope, operations in SCOPES.items():
            lines = bearer(server.put("k", scope)) + "Expect: 100-continue\r\nContent-Length: 1\r\n"
            for route in served_routes(surface):
                for method in methods_of(route):
                    status, body = send(server, role, method, described(route), lines)
                    public = required(route.operation) is None
                    wanted = "100" if public or route.operation in operations else "403"
                    self.assertEqual(status, wanted, f"{scope}: {method} {route.path}")
                    if wanted == "403":
                        self.assertIn(b"The key k has no scope for this request", body)
                    asked.add(route.operation)
        self.assertEqual(server.in_flight("k"), 0)
        return asked

    def test_apart(self) -> None:
        """Listeners of their own."""
        with KeyedServer(EVERYTHING, models=MODELS) as server:
            asked = set()
            for role in (Role.INFERENCE, Role.MANAGEMENT):
                asked |= self.tried(server, role, Surface(role, tokens=True, open_inference=True))
            self.assertLessEqual(SCOPES["inference"] | SCOPES["models:read"] | SCOPES["models:write"], asked)

    def test_together(self) -> None:
        """One listener, which has metrics for a key."""
        with KeyedServer({**EVERYTHING, **SHARED}, models=MODELS) as server:
            surface = Surface(BOTH, tokens=True, guarded_metrics=True, open_inference=True)
            self.assertIn(Operation.READ_METRICS, self.tried(server, Role.INFERENCE, surface))

    def test_each_method(self) -> None:
        """A route whose methods have operations of their own is opened by each for this alone."""
        with KeyedServer(EVERYTHING, models=MODELS) as server:
            read, write = server.put("r", "models:read"), server.put("w", "models:write")
            for method, key in (("GET", read), ("OPTIONS", read), ("PUT", write), ("DELETE", write)):
                for name in ("resnet", "nowhere"):
                    for other in (read, write):
                        status, _ = send(server, Role.MANAGEMENT, method, f"/models/{name}", bearer(other))
                        self.assertEqual(status == "403", other != key, f"{method} {name}")


class SpellingTests(SynchronousTestCase):
    """A key for some models reaches no other, and does not learn whether one is there, however a path is spelled."""

    def setUp(self) -> None:
        self.server = KeyedServer(EVERYTHING, models=MODELS)
        self.addCleanup(self.server.close)
        self.server.add_workflow(HIDDEN, "models:\n  nested:\n    url: resnet\ndag:\n  nested: []\n")
        self.key = self.server.put("limited", "inference:resnet*")

    def jobs(self) -> set[str]:
        asked = set()
        for worker in self.server.provider.workers:
            if worker.batches:
                asked.add(worker.spec.load.model_name)
                worker.batches.clear()
        return asked

    @given(st.data())
    def test_spellings(self, data: st.DataObject) -> None:
        """Paths of all routes with any names in them, escaped, in any case, with other slashes and segments."""
        templates = sorted({route.path for route in EVERY_ROUTE} | {"/{model_name}", "/{model_name}/{model_name}"})
        template = data.draw(st.sampled_from(templates))
        names = st.sampled_from(["{other}", "{other}", "resnet", "resnet-50", "resnet{other}", "", "1.0", "all"])
        path = re.sub(r"\{\w+\}", lambda _: data.draw(names), template)
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(path)))
            more = [
                "/",
                "//",
                "/.",
                "/..",
                "/../{other}",
                ";x",
                "%2f",
                "%2e%2e",
                "%00",
                "?",
                "#",
                "/{other}",
                ":predict",
            ]
            path = path[:at] + data.draw(st.sampled_from(more)) + path[at:]
        query = data.draw(st.sampled_from(["", "", "?model_name={other}", "?model_name=resnet&model_name={other}"]))
        form = data.draw(st.sampled_from(["", "", "model_name={other}", "model_name={other}&model_name=resnet"]))
        escaped = data.draw(st.sets(st.integers(0, 5), max_size=3))
        upper = data.draw(st.sets(st.integers(0, 5), max_size=2))
        method = data.draw(st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "HEAD", "DELETE"]))
        role = data.draw(st.sampled_from([Role.INFERENCE, Role.INFERENCE, Role.MANAGEMENT]))
        answers = []
        for name in (HIDDEN, ABSENT):
            cased = "".join(letter.upper() if i in upper else letter for i, letter in enumerate(name))
            spelled = "".join(f"%{ord(letter):02x}" if i in escaped else letter for i, letter in enumerate(cased))
            target = (path + query).replace("{other}", spelled)
            lines = bearer(self.key) + "Content-Type: application/x-www-form-urlencoded\r\n"
            body = form.replace("{other}", name).encode("ascii")
            status, content = send(self.server, role, method, target, lines, body)
            self.assertNotIn(self.jobs(), ({HIDDEN}, {HIDDEN, "resnet"}), target)
            self.assertNotEqual(status, "500", target)
            shown = content.decode("utf-8")
            answers.append((status, shown.replace(spelled, "?").replace(cased, "?").replace(name, "?")))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(answers[0], answers[1], path)

    def test_reached(self) -> None:
        """The spellings above reach models that the key opens: each kind of route answers for one of them."""
        answered = set()
        for route in served_routes(Surface(Role.INFERENCE, tokens=True, open_inference=True)):
            if route.operation in SCOPES["inference"] and route.method != "options":
                target = described(route).replace("resnet", "resn%65t")
                status, _ = send(self.server, Role.INFERENCE, route.method.upper(), target, bearer(self.key), b"{}")
                answered.add((route.operation, status))
        for operation in (Operation.PREDICT, Operation.EXPLAIN, Operation.INSPECT_MODELS, Operation.CHECK_HEALTH):
            self.assertIn((operation, "200"), answered)

    def test_lists(self) -> None:
        """The list of KServe's version 1 has the models that the key opens; management's lists are refused."""
        answer = self.server.request("GET", "/v1/models", self.key, role=Role.INFERENCE)
        self.assertEqual(answer.json, {"models": ["resnet", "resnet-50"]})
        for path in ("/v1/models", "/models", "/workflows"):
            self.assertEqual(self.server.request("GET", path, self.key, role=Role.MANAGEMENT).status, 403, path)
        everything = self.server.put("all", "inference:*")
        answer = self.server.request("GET", "/v1/models", everything, role=Role.INFERENCE)
        self.assertEqual(answer.json, {"models": sorted(MODELS)})

    def test_description(self) -> None:
        """OPTIONS describes the models that the key opens, and no other, whether it is there or not."""
        for path in ("/predictions/{}", "/{}/predict", "/v2/models/{}/infer", "/explanations/{}/1.0"):
            statuses = [
                self.server.request("OPTIONS", path.format(name), self.key, role=Role.INFERENCE).status
                for name in ("resnet", HIDDEN, ABSENT)
            ]
            self.assertEqual(statuses, [200, 403, 403], path)

    def test_invocations(self) -> None:
        """The model of an invocation is checked where it is named: in the query, in a form, at the start."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for name, status in (("resnet", 200), (HIDDEN, 403), (ABSENT, 403)):
            for target, body in (
                (f"/invocations?model_name={name}", b""),
                ("/invocations", f"model_name={name}".encode()),
            ):
                answer = self.server.request("POST", target, self.key, form, body, role=Role.INFERENCE)
                self.assertEqual(answer.status, status, f"{target} {name}")
                if status == 403:
                    self.assertIn('error="insufficient_scope"', answer.headers["www-authenticate"])
                    self.assertIn("The key limited has no scope for this request (predict).", answer.json["message"])
        self.assertEqual(self.jobs(), {"resnet"})
        with KeyedServer(models={HIDDEN: {}}) as server:
            key = server.put("limited", "inference:resnet*")
            answer = server.request("POST", "/invocations", key, body=b"x", role=Role.INFERENCE)
            self.assertEqual((answer.status, answer.json["message"]), (400, "Parameter model_name is required."))

    def test_audit(self) -> None:
        """A refusal behind the gate is in the audit log once, with the path and without the query."""
        with capturedLogs() as logged:
            self.server.request("POST", "/invocations?model_name=zqhidden", self.key, role=Role.INFERENCE)
        lines = [event for event in logged if "Refused" in str(event.get("log_format"))]
        self.assertEqual(
            [(event["method"], event["path"], event["name"]) for event in lines], [("POST", "/invocations", "limited")]
        )


class OtherRouteTests(SynchronousTestCase):
    """Metrics, the three keys, unknown paths, plug-ins."""

    def server(self, options: Any = (), **more: Any) -> KeyedServer:
        server = KeyedServer({**EVERYTHING, **dict(options)}, models=MODELS, **more)
        self.addCleanup(server.close)
        return server

    def status(self, server: KeyedServer, method: str, target: str, *keys: str, role: Role) -> str:
        return send(server, role, method, target, "".join(bearer(key) for key in keys))[0]

    def test_metrics_token(self) -> None:
        """Where metrics need a token, a key of the scope opens them as well, and no other key does."""
        path = Path(self.mktemp())
        path.write_text("a-long-enough-word")
        server = self.server({"metrics_token_file": path.absolute()})

        def status(*keys: str) -> str:
            return self.status(server, "GET", "/metrics", *keys, role=Role.METRICS)

        key = server.put("prometheus", "metrics", rate=2, concurrent=1)
        self.assertEqual([status(key) for _ in range(3)], ["200", "200", "429"])
        self.assertEqual(status("a-long-enough-word"), "200")
        for scope in sorted(SCOPES.keys() - {"metrics"}):
            self.assertEqual(status(server.put("k", scope)), "403", scope)
        for kind in TokenKind:
            self.assertEqual(status(server.key(kind)), "401")
        server.revoke("prometheus")
        self.assertEqual([status(key), status(), status("x"), status(key, "a-long-enough-word")], ["400"] + ["401"] * 3)

    def test_three_like_named(self) -> None:
        """A key of the three that begins like a named one opens what it did, and no metrics."""
        path = Path(self.mktemp())
        path.write_text("a-long-enough-word")

        def entropy(size: int) -> bytes:
            return urlsafe_b64decode("tsk_") + token_bytes(size - 3)

        server = self.server({"metrics_token_file": path.absolute()}, dependencies={"entropy": entropy})
        key = server.key(TokenKind.MANAGEMENT)
        self.assertTrue(key.startswith("tsk_"))
        self.assertEqual(self.status(server, "GET", "/models", key, role=Role.MANAGEMENT), "200")
        self.assertEqual(self.status(server, "GET", "/metrics", key, role=Role.METRICS), "401")

    def test_token(self) -> None:
        """The three keys are replaced with the scope tokens alone."""
        server = self.server()
        for scope in SCOPES:
            old = server.key(TokenKind.INFERENCE)
            status = self.status(server, "POST", "/token?type=inference", server.put("k", scope), role=Role.MANAGEMENT)
            self.assertEqual(
                (status, server.key(TokenKind.INFERENCE) != old), ("200", True) if scope == "tokens" else ("403", False)
            )

    def test_several_headers(self) -> None:
        """Two headers are refused, also of a good key."""
        server = self.server()
        key = server.put("k", "inference")
        for keys in ((key, key), (key, server.key(TokenKind.INFERENCE)), ("x", key)):
            self.assertEqual(self.status(server, "GET", "/ping", *keys, role=Role.INFERENCE), "400")
        self.assertEqual(server.in_flight("k"), 0)

    def test_unknown_paths(self) -> None:
        """An unknown path is for keys of all inference, on the listener of inference."""
        server = self.server()
        for scope, wanted in (("inference", "404"), ("inference:*", "403"), ("models:read", "403"), ("tokens", "403")):
            key = server.put("k", scope)
            self.assertEqual(self.status(server, "GET", "/nowhere", key, role=Role.INFERENCE), wanted, scope)
            self.assertEqual(self.status(server, "GET", "/nowhere", key, role=Role.MANAGEMENT), "403", scope)

    def test_plugins(self) -> None:
        """A plug-in's endpoint is for keys of all inference; it gets the name of the key, and no such header."""
        seen: list[EndpointRequest] = []

        def answer(request: EndpointRequest, _context: Any) -> EndpointAnswer:
            seen.append(request)
            return EndpointAnswer(b"plugged")

        plugged = [Endpoint("own", "inference", answer), Endpoint("manage", "management", answer)]
        server = self.server(endpoints=plugged)
        key = server.put("team", "inference")
        lines = bearer(key) + "X-TS-Key-Name: admin\r\nX_TS_KEY_NAME: admin\r\n"
        self.assertEqual(send(server, Role.INFERENCE, "GET", "/own", lines), ("200", b"plugged"))
        [request] = seen
        self.assertEqual(request.principal, "team")
        self.assertEqual([name for name in request.headers if "key" in name], [])
        for scope in ("inference:*", "models:read", "models:write", "tokens", "metrics"):
            self.assertEqual(self.status(server, "GET", "/own", server.put("k", scope), role=Role.INFERENCE), "403")
        for scope in SCOPES:
            self.assertEqual(self.status(server, "GET", "/manage", server.put("k", scope), role=Role.MANAGEMENT), "403")

    def test_handler(self) -> None:
        """A handler gets the name of the key, and never what a client says, however it is spelled."""
        server = self.server()
        key = server.put("team", "inference")
        spoofed = "X-TS-Key-Name: a\r\nx-ts-key-name: b\r\nX_TS_KEY_NAME: c\r\nx-ts_key-NAME: d\r\n"
        for target in (
            "/predictions/resnet",
            "/resnet/predict",
            "/v2/models/resnet/infer",
            "/invocations?model_name=resnet",
        ):
            for sent, name in ((key, "team"), (server.key(TokenKind.INFERENCE), None)):
                self.assertEqual(send(server, Role.INFERENCE, "POST", target, bearer(sent) + spoofed, b"{}")[0], "200")
                [worker] = [worker for worker in server.provider.workers if worker.batches]
                [[job]] = worker.batches
                worker.batches.clear()
                names = {header: value for header, value in job.headers.items() if "key" in header.lower()}
                self.assertEqual(names, {"x-ts-key-name": name} if name else {}, target)
                self.assertNotIn(key, repr(job.headers))
