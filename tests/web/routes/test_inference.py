# SPDX-License-Identifier: Apache-2.0
"""
The inference routes, against the whole server in memory.
"""

from __future__ import annotations

from uuid import UUID

from tests.web.routes.inference_case import HeldTestCase, InferenceTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import NoAnswerYet
from twisted_serve.wire.messages import Item, Part


class PredictionTests(HeldTestCase):
    """Tests for ``/predictions``."""

    def test_answer(self) -> None:
        """The answer is the handler's body with the headers of every answer, and no content type of ours."""
        answer = self.request("POST", "/predictions/m", b"x", Content_Type="application/octet-stream")
        self.assertEqual((answer.status, answer.body), (200, b"answer"))
        UUID(answer.headers["x-request-id"])
        self.assertEqual(answer.headers["x-request-id"], self.jobs[0].request_id)
        self.assertEqual(answer.headers["pragma"], "no-cache")
        self.assertEqual(answer.headers["cache-control"], "no-cache; no-store, must-revalidate, private")
        self.assertEqual(answer.headers["expires"], "Thu, 01 Jan 1970 00:00:00 UTC")
        self.assertNotIn("content-type", answer.headers)
        self.assertNotIn("server", answer.headers)

    def test_deadline(self) -> None:
        """A client may say how long it waits; the time counts from when its request began to arrive."""
        self.server.provider.holding = True
        self.server.provider.workers[0].holding = True
        pending = self.server.send(
            "POST",
            "/predictions/m",
            self.server.key(TokenKind.INFERENCE),
            {"X-Request-Timeout-Ms": "1500"},
            b"x",
        )
        self.server.advance(1.4)
        with self.assertRaises(NoAnswerYet):
            self.server.answered(pending)
        self.server.advance(0.1)
        answer = self.server.answered(pending)
        self.assertEqual((answer.status, answer.json["type"]), (408, "RequestTimeoutException"))

    def test_bad_deadline(self) -> None:
        """A time that is none is refused, with the header and what it said; no worker sees the request."""
        for value in ("0", "-1", "1.5", "1e3", "", "soon", "1_000", "86400001", "9" * 5000, "1, 2"):
            answer = self.request("POST", "/predictions/m", X_Request_Timeout_Ms=value)
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"))
            self.assertIn("X-Request-Timeout-Ms must be from 1 to 86400000 milliseconds", answer.json["message"])
            self.assertIn(f"not '{value[:20]}", answer.json["message"])
        self.assertEqual([], self.jobs)
        self.assertEqual(200, self.request("POST", "/predictions/m", X_Request_Timeout_Ms="86400000").status)

    def test_any_method(self) -> None:
        """Any method predicts, but for OPTIONS."""
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "REPORT"):
            self.assertEqual(self.request(method, "/predictions/m", b"x").body, b"answer", method)

    def test_inputs(self) -> None:
        """A body is the input ``body``, a form its fields; query parameters are no inputs."""
        self.request("POST", "/predictions/m?q=1", b'{"a": 1}', Content_Type="application/json; charset=utf-8")
        self.request("POST", "/predictions/m", b"a=1&b=%ff+", Content_Type="application/x-www-form-urlencoded")
        self.request("POST", "/predictions/m")
        self.assertEqual(
            [job.parts for job in self.jobs],
            [
                [Part("body", "application/json", b'{"a": 1}')],
                [Part("a", "", b"1", decode=False), Part("b", "", b"\xff ", decode=False)],
                [Part("body", "", b"")],
            ],
        )

    def test_headers(self) -> None:
        """A handler sees headers as they were spelled, and what the server says of the path."""
        connection = self.server.connect()
        head = "GET /predictions/m/1.0/v1/chat%20x HTTP/1.1\r\nHost: h\r\nX-cUSTOM: a\r\nX-cUSTOM: b\r\n"
        key = self.server.key(TokenKind.INFERENCE)
        connection.send(
            f"{head}URL_Path: lie\r\nDescribe: True\r\nexplain: True\r\nauthorization: Bearer {key}\r\n\r\n".encode()
        )
        self.assertEqual(
            self.jobs[0].headers, {"Host": "h", "X-cUSTOM": "b", "url_path": "v1/chat x", "explain": "False"}
        )

    def test_handlers_choice(self) -> None:
        """A handler chooses status, phrase, headers and content type, but not what the server answers for."""
        self.item = (
            599,
            "My Phrase",
            {
                "dummy": "1",
                "content-type": "text/plain",
                "Content-Length": "1",
                "Transfer-Encoding": "chunked",
                "X-Request-Id": "mine",
                "Connection": "upgrade",
            },
            b"text",
        )
        connection = self.server.connect()
        connection.get("/predictions/m", f"Authorization: Bearer {self.server.key(TokenKind.INFERENCE)}")
        head, _, body = connection.received.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 599 My Phrase\r\n"), head)
        self.assertEqual(body, b"text")
        lines = [line.lower() for line in head.split(b"\r\n")]
        self.assertIn(b"dummy: 1", lines)
        self.assertIn(b"content-type: text/plain", lines)
        self.assertEqual([line for line in lines if line.startswith(b"content-length")], [b"content-length: 4"])
        self.assertEqual([line for line in lines if line.startswith(b"connection")], [b"connection: close"])
        self.assertFalse([line for line in lines if line.startswith(b"transfer-encoding")])
        self.assertNotIn(b"x-request-id: mine", lines)

    def test_no_content(self) -> None:
        """A status which has no body is answered without one, and the connection goes on."""
        self.item = (204, "", {}, b"not to be sent")
        connection = self.server.connect()
        head = "Authorization: Bearer " + self.server.key(TokenKind.INFERENCE)
        for _ in range(2):
            self.assertEqual(connection.get("/predictions/m", head), 204)
        self.assertNotIn(b"not to be sent", connection.received)
        self.assertNotIn(b"ontent-", connection.received)
        self.assertTrue(connection.open)

    def test_unknown(self) -> None:
        """An unknown model or version is 404, in the predecessor's words."""
        answer = self.request("POST", "/predictions/absent")
        self.assertEqual(
            answer.json, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: absent"}
        )
        answer = self.request("GET", "/predictions/m/1.3.1")
        self.assertEqual(answer.json["type"], "ModelVersionNotFoundException")
        self.assertEqual(answer.json["message"], "Model version: 1.3.1 does not exist for model: m")

    def test_handler_error(self) -> None:
        """A handler's error is the client's, with its code."""
        self.error = WorkerFailed(503, "Prediction failed")
        answer = self.request("POST", "/predictions/m", b"x")
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.json, {"code": 503, "type": "InternalServerException", "message": "Prediction failed"})

    def test_killed_worker(self) -> None:
        """A request that is at a worker which dies, and at the next one, too, is answered and then refused."""
        [worker] = self.server.provider.workers
        worker.holding = self.server.provider.holding = True
        waiting = self.server.send("POST", "/predictions/m", self.server.key(TokenKind.INFERENCE), body=b"x")
        with self.assertRaises(NoAnswerYet):
            self.server.answered(self.server.send("POST", "/predictions/m", self.server.key(TokenKind.INFERENCE)))
        worker.kill()
        self.server.advance(1)
        self.server.provider.holding = False
        self.server.provider.workers[-1].kill()
        answer = self.server.answered(waiting)
        self.assertEqual((answer.status, answer.json["message"]), (500, "Worker died."))
        self.server.advance(1)
        self.assertEqual(self.request("POST", "/predictions/m", b"y").body, b"answer")
        answer = self.request("POST", "/predictions/m", b"x")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "299"))
        self.assertIn("This request has killed 2 workers", answer.json["message"])

    def test_no_workers(self) -> None:
        """A model without workers answers 503 at once, in the predecessor's words."""
        self.server.request("PUT", "/models/m?min_worker=0", self.server.key(TokenKind.MANAGEMENT))
        answer = self.request("POST", "/predictions/m", b"x")
        self.assertEqual((answer.status, answer.json["type"]), (503, "ServiceUnavailableException"))
        self.assertTrue(
            answer.json["message"].startswith('Model "m" has no worker to serve inference request.'), answer.json
        )

    def test_bad_form(self) -> None:
        """A form that cannot be read is 400 and says why; no worker sees it."""
        for content_type, body in (
            ("multipart/form-data; boundary=x", b"nonsense"),
            ("multipart/form-data; boundary=", b"--x--"),
            ("application/x-www-form-urlencoded", b"a=1&" * 2000),
        ):
            answer = self.request("POST", "/predictions/m", body, Content_Type=content_type)
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"), content_type)
        self.assertEqual(self.jobs, [])

    def test_stream(self) -> None:
        """Intermediate answers go out one by one, each as a chunk, before the last is there."""
        connection, worker, job = self.held("HTTP/1.1")
        worker.chunk(Item(job.request_id, 200, "", {"content-type": "text/plain"}, b""))
        self.assertTrue(connection.received.endswith(b"\r\n\r\n"), "the head is there before the first piece")
        worker.chunk(Item(job.request_id, 200, "", {}, b"one "))
        self.assertIn(b"transfer-encoding: chunked", connection.received.lower())
        self.assertTrue(connection.received.endswith(b"4\r\none \r\n"), connection.received)
        worker.chunk(Item(job.request_id, 500, "ignored", {"x": "ignored"}, b"two "))
        worker.chunk(Item(job.request_id, 200, "", {}, b""))
        worker.answer([Item(job.request_id, 200, "", {}, b"three")])
        self.assertTrue(connection.received.endswith(b"4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"), connection.received)
        self.assertEqual(connection.received.count(b"HTTP/1.1"), 1)
        self.assertTrue(connection.open)

    def test_broken_stream(self) -> None:
        """A stream whose worker dies is broken off, not ended as if it were whole."""
        connection, worker, job = self.held("HTTP/1.1")
        worker.chunk(Item(job.request_id, 200, "", {}, b"one "))
        worker.kill()
        self.assertTrue(connection.received.endswith(b"one \r\n"), connection.received)
        self.assertFalse(connection.open)

    def test_stream_to_http_1_0(self) -> None:
        """A client which knows no chunks gets the bare bytes, and the end of the connection as their end."""
        connection, worker, job = self.held("HTTP/1.0", "Connection: keep-alive\r\n")
        worker.chunk(Item(job.request_id, 200, "", {}, b"one "))
        worker.answer([Item(job.request_id, 200, "", {}, b"two")])
        self.assertNotIn(b"chunked", connection.received)
        self.assertIn(b"\r\nConnection: close\r\n", connection.received)
        self.assertTrue(connection.received.endswith(b"\r\n\r\none two"), connection.received)
        self.assertFalse(connection.open)


class SmallLimitsTests(InferenceTestCase):
    """Tests for full queues."""

    options = {"job_queue_size": 2}

    def test_full_queue(self) -> None:
        """When the queue is full, the next request is refused at once, and told when to come back."""
        [worker] = self.server.provider.workers
        worker.holding = True
        key = self.server.key(TokenKind.INFERENCE)
        waiting = [self.server.send("POST", "/predictions/m", key, body=b"%d" % i) for i in range(3)]
        answer = self.request("POST", "/predictions/m", b"x")
        self.assertEqual((answer.status, answer.json["type"]), (503, "ServiceUnavailableException"))
        self.assertEqual(answer.headers["retry-after"], "1")
        self.assertIn("full", answer.json["message"])
        for one in waiting:
            worker.answer()
            self.assertEqual(self.server.answered(one).body, b"answer")
