# SPDX-License-Identifier: Apache-2.0
"""Tests for what clients and logs are told of predictions that failed."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, capturedLogs

from tests.web.routes.inference_case import InferenceTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.logs import ACCESS_LOG, MODEL_LOG
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item, Job

REASON = "KeyError: 'name' (handler.py, line 4)"


class DetailTests(InferenceTestCase):
    """Whether clients learn what a handler has raised."""

    def serve(self, **options: Any) -> None:
        """Serve with other settings, and a handler that raises."""
        self.server = MemoryServer(options, respond=self.respond, models={"m": {}})
        self.addCleanup(self.server.close)
        self.error = WorkerFailed(503, "Prediction failed", REASON)

    def test_listeners(self) -> None:
        """Clients of the machine learn it, others only if the setting says so; with ``false`` none does."""
        for address, setting, told in (
            ("http://127.0.0.1:8080", "auto", True),
            ("http://[::1]:8080", "auto", True),
            ("unix:/tmp/serve.sock", "AUTO", True),
            ("http://0.0.0.0:8080", "auto", False),
            ("http://192.0.2.1:8080", "auto", False),
            ("http://0.0.0.0:8080", "true", True),
            ("http://127.0.0.1:8080", "false", False),
        ):
            self.serve(inference_address=address, prediction_error_detail=setting)
            for path in ("/predictions/m", "/v1/models/m:predict", "/v2/models/m/infer", "/m/predict"):
                answer = self.request("POST", path, b"{}")
                self.assertEqual((503, "Prediction failed"), (answer.status, answer.json["message"]), path)
                self.assertEqual(REASON if told else None, answer.json.get("reason"), (address, setting, path))

    def test_default(self) -> None:
        """It is a matter of the listener, unless it is said."""
        self.assertEqual("auto", self.server.options.prediction_error_detail)

    def test_wrong_setting(self) -> None:
        """Anything else is refused, by name and value."""
        with self.assertRaisesRegex(ValueError, "prediction_error_detail.*maybe"):
            MemoryServer({"prediction_error_detail": "maybe"})

    def test_keys(self) -> None:
        """A key that a handler puts into its exception goes no further."""
        self.serve(prediction_error_detail="true")
        key = self.server.key(TokenKind.MANAGEMENT)
        self.error = WorkerFailed(503, "Prediction failed", f"ValueError: {key}")
        answer = self.request("POST", "/predictions/m")
        self.assertEqual("ValueError: <redacted>", answer.json["reason"])

    def test_descriptions(self) -> None:
        """A handler that cannot describe its model says why as well."""
        self.serve(management_address="http://127.0.0.1:8081")
        answer = self.server.request("GET", "/models/m?customized=true", self.server.key(TokenKind.MANAGEMENT))
        self.assertEqual((503, REASON), (answer.status, answer.json["reason"]))

    def test_statuses_without_content(self) -> None:
        """A handler's exception may have a status whose answer has no body; then none is announced either."""
        self.serve()
        head = "Authorization: Bearer " + self.server.key(TokenKind.INFERENCE)
        connection = self.server.connect()
        for status in (204, 304, 205):
            self.error = WorkerFailed(status, "nothing to say")
            self.assertEqual(status, connection.get("/predictions/m", head))
        self.assertNotIn(b"nothing to say", connection.received)
        self.assertNotIn(b"ontent-Type", connection.received)
        self.assertEqual(1, connection.received.count(b"ontent-Length: "), connection.received)
        self.assertIn(b"Content-Length: 0\r\n", connection.received)
        self.assertTrue(connection.open)

    def test_no_reason(self) -> None:
        """Where there is none there is no member for it: a handler's own error says all that it wants."""
        self.serve()
        self.error = WorkerFailed(404, "no such user")
        self.assertNotIn("reason", self.request("POST", "/predictions/m").json)


class FlawTests(InferenceTestCase):
    """Requests that the worker finds at fault."""

    def test_flaw(self) -> None:
        """What is wrong with a request is a 400 of that request, on every route."""

        def respond(jobs: list[Job]) -> list[Item]:
            return [Item(job.request_id, 400, "", {}, b"", False, "The body is no JSON: oh (line 1).") for job in jobs]

        self.server.provider.respond = respond
        for path in ("/predictions/m", "/predictions/m/1.0", "/v1/models/m:predict", "/explanations/m"):
            answer = self.request("POST", path, b"{", content_type="application/json")
            self.assertEqual((400, "BadRequestException"), (answer.status, answer.json["type"]))
            self.assertEqual("The body is no JSON: oh (line 1).", answer.json["message"])


class AccessTests(InferenceTestCase):
    """What the access log has of a request."""

    def logged(self, path: str, **headers: str) -> tuple[str, str, Any]:
        """Send a request; give the id of its answer, and its line and its fields in the log."""
        with capturedLogs() as events:
            answer = self.request("POST", path, b"x", **headers)
        [event] = [event for event in events if event.get("logger_name") == ACCESS_LOG]
        return answer.headers["x-request-id"], event["line"], event["fields"]

    def test_ids(self) -> None:
        """JSON has the id of each answer; a line ends with that of an answer of 400 and above, and with a client's."""
        answer_id, line, fields = self.logged("/predictions/m")
        self.assertEqual(answer_id, fields["request_id"])
        self.assertRegex(line, r" 200 \d+$")
        answer_id, line, fields = self.logged("/predictions/absent")
        self.assertEqual(answer_id, fields["request_id"])
        self.assertRegex(line, rf" 404 \d+ {answer_id}$")
        self.error = WorkerFailed(503, "Prediction failed")
        answer_id, line, _fields = self.logged("/predictions/m")
        self.assertRegex(line, rf" 503 \d+ {answer_id}$")
        answer_id, line, _fields = self.logged("/predictions/m", x_request_id="mine")
        self.assertEqual("mine", answer_id)
        self.assertTrue(line.endswith(" mine"))

    def test_refused(self) -> None:
        """A request without its token is no exception."""
        with capturedLogs() as events:
            answer = self.server.request("POST", "/predictions/m", None)
        [line] = [event["line"] for event in events if event.get("logger_name") == ACCESS_LOG]
        self.assertTrue(line.endswith(f" {answer.headers['x-request-id']}"), line)


class FormTests(InferenceTestCase):
    """JSON that comes as a form, which is what ``curl -d`` makes of it."""

    def hints(
        self, body: bytes, content_type: str = "application/x-www-form-urlencoded", model: str = "m"
    ) -> list[str]:
        """Send a body; give what the model log says of it."""
        with capturedLogs() as events:
            self.request("POST", f"/predictions/{model}", body, content_type=content_type)
        hints = [event for event in events if event.get("logger_name") == MODEL_LOG]
        self.assertTrue(all(event["log_level"] is LogLevel.warn for event in hints))
        return [event["log_format"].format(**event) for event in hints]

    def test_hint(self) -> None:
        """The log names the header to send, once a minute; the handler gets the form as ever."""
        for body in (b'{"a": 1}', b'{"a": "b=c&d"}', b" \n[1, 2]", b'[{"a": "="}]'):
            [hint] = self.hints(body)
            self.assertIn("Model m, request ", hint)
            self.assertIn('send it with the header "Content-Type: application/json"', hint)
            self.assertEqual([], self.hints(body))
            self.server.advance(60.0)
        self.assertEqual([], self.jobs[0].parts)

    def test_no_hint(self) -> None:
        """Forms that are forms, JSON that is called so, and models that are not there are no reason for a line."""
        self.assertEqual([], self.hints(b"a={}&b=[1]"))
        self.assertEqual([], self.hints(b""))
        self.assertEqual([], self.hints(b"{}", "application/json"))
        self.assertEqual([], self.hints(b"{}", "text/plain"))
        self.assertEqual([], self.hints(b"{}", model="absent"))
