# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.items`."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backend.model_log import model_log
from twisted_serve.backend.items import MAX_HEAD, RefusedAnswerError, checked_item, item
from twisted_serve.handlers.context import RequestProcessor
from twisted_serve.wire.codec import encode, server_reader
from twisted_serve.wire.messages import Item, Predicted


class Text(str):
    """A string that is not exactly ``str``, as numpy's are."""


class ItemTests(SynchronousTestCase):
    """An answer's head is what the handler asked for, or the answer says why not."""

    def _refused(self, processor: RequestProcessor, body: bytes = b"x") -> str:
        answer = item("r", processor, body, 10)
        error = json.loads(answer.body)
        self.assertEqual((answer.request_id, answer.status, answer.phrase), ("r", 500, ""))
        self.assertEqual(answer.headers, {"content-type": "application/json"})
        self.assertEqual((error["code"], error["type"]), (500, "InternalServerException"))
        self.assertRaises(RefusedAnswerError, checked_item, "r", processor, body, 10)
        return str(error["message"])

    def test_too_much_of_a_head(self) -> None:
        """Headers and phrase may have 64 KiB together: more would neither arrive nor be of use."""
        processor = RequestProcessor({})
        processor.report_status(200, "fine")
        processor.add_response_property("x", "a" * (MAX_HEAD - 5))
        self.assertEqual(item("r", processor, b"", 10).status, 200)
        log = model_log(self)
        processor.add_response_property("y", "")
        self.assertEqual(self._refused(processor), f"Response headers of {MAX_HEAD + 1} bytes exceed {MAX_HEAD}")
        self.assertIn(f"An answer cannot be sent: Response headers of {MAX_HEAD + 1} bytes", log.read_text())

    def test_untouched(self) -> None:
        """A handler that says nothing about its answer answers 200 with no headers."""
        self.assertEqual(item("r", RequestProcessor({}), b"x", 10), Item("r", 200, "", {}, b"x"))

    def test_stream_header(self) -> None:
        """The header that marks the end of a stream is not sent to clients."""
        processor = RequestProcessor({})
        processor.add_response_property("TS_stream_next", "true")
        processor.add_response_property("x-tea", "Assam")
        self.assertEqual(item("r", processor, b"x", 10), Item("r", 200, "", {"x-tea": "Assam"}, b"x"))

    def test_head(self) -> None:
        """Status, phrase and headers are the handler's."""
        processor = RequestProcessor({})
        processor.report_status(418, "I'm a teapot")
        processor.add_response_property("X-Tea", "Darjeeling\tFTGFOP é")
        expected = Item("r", 418, "I'm a teapot", {"X-Tea": "Darjeeling\tFTGFOP é"}, b"x")
        self.assertEqual(item("r", processor, b"x", 10), expected)

    def test_statuses(self) -> None:
        """Codes from 200 to 999 pass, those of ``http`` too."""
        for status in (200, 404, 599, 999, HTTPStatus.CREATED):
            processor = RequestProcessor({})
            processor.report_status(status)
            answer = item("r", processor, b"", 10)
            self.assertEqual(answer.status, status)
            self.assertIs(type(answer.status), int)

    def test_refused_statuses(self) -> None:
        """A value that is not a final HTTP status is refused; the message contains it."""
        statuses: list[Any] = [0, -1, 100, 199, 1000, 10**400, "200", None, 200.0, True]
        for status in statuses:
            processor = RequestProcessor({})
            processor.report_status(status)
            self.assertIn("Response status", self._refused(processor))

    def test_refused_headers(self) -> None:
        """A header that would end its line, or whose name is no token, is refused, naming it."""
        headers: list[tuple[Any, Any]] = [
            ("x", "a\r\nSet-Cookie: stolen"),
            ("x", "a\nb"),
            ("x", "a\x00b"),
            ("x", 1),
            ("x", None),
            ("x", b"bytes"),
            ("x\r\ny", "a"),
            ("x y", "a"),
            ("x:", "a"),
            ("", "a"),
            ("é", "a"),
            (1, "a"),
        ]
        for name, value in headers:
            processor = RequestProcessor({})
            processor.add_response_property(name, value)
            self.assertIn("Response header", self._refused(processor))

    def test_refused_phrases(self) -> None:
        """A reason phrase that would end its line is refused."""
        phrases: list[Any] = ["OK\r\nX: y", "a\x00", 7]
        for phrase in phrases:
            processor = RequestProcessor({})
            processor.report_status(200, phrase)
            self.assertIn("Response reason phrase", self._refused(processor))

    def test_beyond_latin_1(self) -> None:
        """Characters outside of latin-1 are encoded, with a line in the model log; the response is sent."""
        log = model_log(self)
        processor = RequestProcessor({})
        processor.report_status(200, "Très 好")
        processor.add_response_property("X-A", "filename=中文")
        processor.add_response_property("Content-Disposition", "attachment; filename=中")
        sent = {"X-A": "filename=??", "Content-Disposition": "attachment; filename=?; filename*=UTF-8''%E4%B8%AD"}
        self.assertEqual(item("r", processor, b"x", 10), Item("r", 200, "Très ?", sent, b"x"))
        said = log.read_text()
        self.assertIn("Response header X-A 'filename=中文' has characters that latin-1 has not", said)
        self.assertIn("Response reason phrase 'Très 好' has", said)

    def test_size(self) -> None:
        """A body as large as the limit passes, a larger one is refused with both sizes."""
        self.assertEqual(item("r", RequestProcessor({}), b"x" * 10, 10).status, 200)
        message = self._refused(RequestProcessor({}), b"x" * 11)
        self.assertEqual(message, "Response of 11 bytes exceeds max_response_size, which is 10")

    def test_subclasses(self) -> None:
        """Text of a subclass of ``str`` reaches the server as text."""
        processor = RequestProcessor({})
        processor.report_status(200, Text("fine"))
        processor.add_response_property(Text("x"), Text("y"))
        reader = server_reader()
        sent = Predicted(1, [item("r", processor, b"", 10)])
        reader.receive(encode(sent))
        self.assertEqual(list(reader.messages()), [sent])

    @given(st.text(), st.text(), st.text(), st.integers())
    def test_any_head(self, name: str, value: str, phrase: str, status: int) -> None:
        """Whatever a handler asks for, no line can end inside a head."""
        processor = RequestProcessor({})
        processor.report_status(status, phrase)
        processor.add_response_property(name, value)
        answer = item("r", processor, b"", 10)
        lines = [answer.phrase, *(f"{key}: {text}" for key, text in answer.headers.items())]
        self.assertFalse([line for line in lines if set(line) & {"\r", "\n", "\0"}])
        self.assertIn(answer.status, range(200, 1000))
        "".join(lines).encode("latin-1")
