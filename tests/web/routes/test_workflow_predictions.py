# SPDX-License-Identifier: Apache-2.0
"""Tests for the answers of workflows, over HTTP."""

from __future__ import annotations

from tests.web.routes.workflow_case import WorkflowTestCase, node_of
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import NoAnswerYet, Role
from twisted_serve.wire.messages import Item


class PredictTests(WorkflowTestCase):
    """Tests for ``/wfpredict``."""

    def setUp(self) -> None:
        super().setUp()
        self.manage("POST", "/workflows?url=w")

    def test_answered(self) -> None:
        """The answer is that of the last node, as it is, and is called JSON."""
        answer = self.predict()
        self.assertEqual((answer.status, answer.body), (200, b"in before model after"))
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_any_method_and_spelling(self) -> None:
        """Any method will do, any spelling of the word, and what follows does not matter."""
        for method, path in (
            ("GET", "/wfpredict/w"),
            ("PUT", "/WfPredict/w"),
            ("PATCH", "/WFPREDICT/w/more/of/it"),
            ("POST", "/wfpredict/w/"),
        ):
            self.assertEqual(self.predict(path, method=method).status, 200, path)

    def test_not_the_legacy_route(self) -> None:
        """A workflow called predict is that, in any spelling, and no model of old clients."""
        self.manage("POST", "/workflows?url=w&workflow_name=predict")
        for word in ("wfpredict", "WFpredict"):
            self.assertEqual(self.predict(f"/{word}/predict").body, b"in before model after")

    def test_what_nodes_get(self) -> None:
        """Each node gets the client's headers, but no key; the first the client's form, others what came before."""
        form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--'
        self.predict(body=form, **{"Content-Type": "multipart/form-data; boundary=x", "X-Mine": "yes"})
        self.assertEqual([part.name for part in self.jobs[0].parts], ["a"])
        self.assertEqual([part.name for part in self.jobs[1].parts], ["body"])
        for job in self.jobs:
            self.assertEqual(job.headers["X-Mine"], "yes")
            self.assertNotIn("authorization", {name.lower() for name in job.headers})
        self.assertEqual(len({job.request_id for job in self.jobs}), 3)

    def test_several_leaves(self) -> None:
        """The objects of several leaves are put together; one that is none fails the request."""
        self.server.add_workflow("f", "models: {}\ndag: {a: [b, c]}")
        self.manage("POST", "/workflows?url=f")
        self.answers["b"] = lambda job: Item(job.request_id, 200, "", {}, b'{"x": 1}')
        self.answers["c"] = lambda job: Item(job.request_id, 200, "", {}, b"{}")
        self.assertEqual(self.predict("/wfpredict/f").json, {"b": {"x": 1}, "c": {}})
        self.answers["c"] = lambda job: Item(job.request_id, 200, "", {}, b"[]")
        self.assertError(
            self.predict("/wfpredict/f"), 500, "InternalServerException", "Workflow inference request failed!", "c is"
        )

    def test_failed(self) -> None:
        """A node that fails in each attempt fails the request, by its name; its own status does not count."""
        self.answers["model"] = lambda job: Item(job.request_id, 418, "", {}, b"teapot")
        self.assertError(
            self.predict(),
            500,
            "InternalServerException",
            "Error executing model",
            "all 2 attempts failed, the last one because it answered with status 418",
        )
        self.assertEqual([node_of(job) for job in self.jobs], ["before", "model", "model"])

    def test_retried(self) -> None:
        """A node that fails once is asked again, and nobody notices."""
        left = [418]
        self.answers["model"] = lambda job: Item(job.request_id, left.pop(), "", {}, b"") if left else self.mark(job)
        self.assertEqual(self.predict().body, b"in before model after")

    def test_timed_out(self) -> None:
        """A node that takes too long, twice, fails the request; its workers are told to forget about it."""
        for worker in self.server.provider.workers:
            worker.holding = worker.spec.load.model_name == "w__model"
        waiting = self.server.send("POST", "/wfpredict/w", self.server.key(TokenKind.INFERENCE))
        self.server.advance(2)
        self.assertRaises(NoAnswerYet, self.server.answered, waiting)
        self.server.advance(2)
        self.assertError(
            self.server.answered(waiting),
            500,
            "InternalServerException",
            "Error executing model",
            "there was no answer within 2000 ms",
        )
        cancelled = [request_id for worker in self.server.provider.workers for request_id in worker.cancelled]
        self.assertEqual(
            {tuple(request_id.split(".")[-2:]) for request_id in cancelled}, {("model", "1"), ("model", "2")}
        )

    def test_streams(self) -> None:
        """A node that streams its answer fails: no other could go on with it."""
        for worker in self.server.provider.workers:
            worker.holding = worker.spec.load.model_name == "w__before"
        waiting = self.server.send("POST", "/wfpredict/w", self.server.key(TokenKind.INFERENCE))
        [first] = [worker for worker in self.server.provider.workers if worker.holding]
        for _ in range(2):
            request_id = first.batches[-1][0].request_id
            first.chunk(Item(request_id, 200, "", {}, b"part"))
            first.answer([Item(request_id, 200, "", {}, b"end")])
        self.assertError(
            self.server.answered(waiting), 500, "InternalServerException", "Error executing before", "it streams"
        )

    def test_client_deadline(self) -> None:
        """A client that says how long it waits waits no longer, for all nodes together."""
        self.server.provider.answer_delay = 1
        waiting = self.server.send(
            "POST", "/wfpredict/w", self.server.key(TokenKind.INFERENCE), {"X-Request-Timeout-Ms": "1500"}
        )
        self.server.advance(1)
        self.server.advance(0.5)
        answer = self.server.answered(waiting)
        self.assertEqual((answer.status, answer.json["type"]), (408, "RequestTimeoutException"))
        self.server.advance(5)
        self.assertEqual([node_of(job) for job in self.jobs][:1], ["before"])
        self.assertNotIn("after", [node_of(job) for job in self.jobs])

    def test_client_gone(self) -> None:
        """When the client leaves, what waits is forgotten, and no further node is asked."""
        self.server.provider.answer_delay = 1
        connection = self.server.connect()
        key = self.server.key(TokenKind.INFERENCE)
        connection.send(f"GET /wfpredict/w HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        self.server.advance(0.5)
        connection.leave()
        self.server.advance(5)
        self.assertEqual([node_of(job) for job in self.jobs], ["before"])
        cancelled = [request_id for worker in self.server.provider.workers for request_id in worker.cancelled]
        self.assertEqual([request_id.split(".")[-2] for request_id in cancelled], ["before"])

    def test_keys(self) -> None:
        """Predicting needs the inference key, all else the management key; a word in capitals opens nothing."""
        for path, role, wrong in (
            ("/wfpredict/w", Role.INFERENCE, TokenKind.MANAGEMENT),
            ("/WFPREDICT/w", Role.INFERENCE, TokenKind.MANAGEMENT),
            ("/workflows", Role.MANAGEMENT, TokenKind.INFERENCE),
            ("/workflows/w", Role.MANAGEMENT, TokenKind.INFERENCE),
            ("/WORKFLOWS", Role.MANAGEMENT, TokenKind.INFERENCE),
        ):
            for key in (None, "x" * 32, self.server.key(wrong), self.server.key(TokenKind.API)):
                answer = self.server.request("GET", path, key, role=role)
                self.assertError(
                    answer,
                    400,
                    "InvalidKeyException",
                    "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
                )
        self.assertEqual(self.jobs, [])
