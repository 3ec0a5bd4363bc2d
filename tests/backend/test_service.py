# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.service`, with handlers as they stand in archives."""

from __future__ import annotations

import json

from hypothesis import given

from tests.backend.handler_case import HandlerTestCase, job
from twisted_serve.backend.call import MAX_MESSAGE
from twisted_serve.testing.local_worker import local_worker
from twisted_serve.testing.strategies.wire import predicts
from twisted_serve.wire.messages import Item, Job, Part, Predict, Predicted, PredictFailed, StreamChunk


class ServiceTests(HandlerTestCase):
    """Tests for the handling of a handler's results and exceptions."""

    def test_answers(self) -> None:
        """Each request gets the answer at its place, under its id and the batch's."""
        answer = self.worker.answer(job("['a', b'b', {'c': 1}]", 7), job("", 8), job("", 9))
        expected = [
            Item("r7", 200, "", {}, b"a"),
            Item("r8", 200, "", {}, b"b"),
            Item("r9", 200, "", {}, b'{\n  "c": 1\n}'),
        ]
        assert isinstance(answer, Predicted)
        self.assertEqual((answer.batch_id, answer.items), (1, expected))
        self.assertGreater(answer.seconds, 0.0)

    def test_failure_in_tests(self) -> None:
        """Who asks for items in a test is told what failed instead."""
        with self.assertRaises(AssertionError) as raised:
            self.worker.predict(Part("body", "", b"throw(PredictionException('no such lamp', 404))"))
        self.assertEqual(str(raised.exception), "the batch failed with 404: no such lamp")

    def test_rows(self) -> None:
        """The handler gets a dictionary for each request, and its headers with the inputs' types."""
        parts = [
            Part("body", "", b"[repr((data, context.get_all_request_header(0)))]"),
            Part("n", "application/json", b"1"),
        ]
        answer = self.worker.answer(Job("r", {"X-A": "b", "explain": "False"}, parts))
        assert isinstance(answer, Predicted)
        data, headers = eval(answer.items[0].body)
        self.assertEqual(data[0]["n"], 1)
        self.assertEqual(
            headers,
            {"body": {"content-type": ""}, "n": {"content-type": "application/json"}, "X-A": "b", "explain": "False"},
        )

    def test_field_named_like_header(self) -> None:
        """An input cannot stand in for a header that the server sets."""
        parts = [Part("body", "", b"[context.get_request_header(0, 'explain')]"), Part("explain", "True", b"True")]
        answer = self.worker.answer(Job("r", {"explain": "False"}, parts))
        assert isinstance(answer, Predicted)
        self.assertEqual(answer.items[0].body, b"False")

    def test_prediction_exception(self) -> None:
        """A handler chooses message and status of the failure."""
        self.assertEqual(self._failure("throw(PredictionException('no such lamp', 404))", 2), (404, "no such lamp"))
        self.assertEqual(self._failure("throw(PredictionException('broken'))"), (500, "broken"))

    def test_strange_prediction_exception(self) -> None:
        """A status that is none becomes 500; a message that is no text becomes one."""
        for code in ("'400'", "None", "0", "10**30", "99"):
            self.assertEqual(self._failure(f"throw(PredictionException('x', {code}))"), (500, "x"))
        self.assertEqual(self._failure("throw(PredictionException(['x', 1], 400))"), (400, "['x', 1]"))
        self.assertEqual(self._failure("throw(PredictionException('\\ud800', 400))"), (400, "?"))

    def test_exception(self) -> None:
        """Any other exception's text is only in the model log, with the traceback and the request ids."""
        self.assertEqual(self._failure("throw(ValueError('secret'))", 3), (503, "Prediction failed"))
        logged = self.log.read_text()
        head = "Invoking custom service failed. model: model 1.0, requests: r0, r1, r2\n"
        self.assertTrue(logged.startswith(f"{head}Traceback (most recent call last):\n"), logged)
        self.assertIn("ValueError: secret", logged)

    def test_reasons(self) -> None:
        """The error and its place are sent to the server, which decides which clients get them; not with a message."""
        for code, reason in (
            ("throw(KeyError('name'))", "KeyError: 'name' (h.py, line 16)"),
            ("throw(ValueError())", "ValueError (h.py, line 16)"),
            ("throw(ValueError('x' * 10_000))", f"ValueError: {'x' * 287}… (h.py, line 16)"),
            ("throw(OSError('no /srv/models/a/weights.pt here'))", "OSError: no weights.pt here (h.py, line 16)"),
            ("throw(MemoryError())", "MemoryError (h.py, line 16)"),
            ("3", "the handler must return a list, not int"),
            ("[1, 2]", "number of batch response mismatched, expect: 1, got: 2."),
            ("[object()]", "object cannot be sent"),
            ("throw(PredictionException('no', 404))", ""),
        ):
            answer = self.worker.answer(job(code))
            assert isinstance(answer, PredictFailed)
            self.assertEqual(reason, answer.reason)

    def test_many_requests(self) -> None:
        """Of a large batch some requests are named, and how many others there are."""
        self._failure("throw(ValueError())", 40)
        first = self.log.read_text().splitlines()[0]
        self.assertTrue(first.endswith("r30, r31 and 8 more"), first)

    def test_broken_json(self) -> None:
        """A request with malformed JSON is not passed to the handler: it gets an error, the others are answered."""
        good = [job("[str(len(data)), str(context.get_request_id(1))]", number) for number in (1, 3)]
        bad = [Job(f"r{number}", {}, [Part("body", "application/json", b"[1,")]) for number in (0, 2)]
        answer = self.worker.answer(bad[0], good[0], bad[1], good[1])
        assert isinstance(answer, Predicted)
        flaw = "The body is no JSON: Expecting value (line 1, column 4)."
        self.assertEqual(
            [("r0", 400, b"", flaw), ("r1", 200, b"2", ""), ("r2", 400, b"", flaw), ("r3", 200, b"r3", "")],
            [(each.request_id, each.status, each.body, each.flaw) for each in answer.items],
        )
        # The handler would complain of an empty batch.
        answer = self.worker.answer(*bad)
        assert isinstance(answer, Predicted)
        self.assertEqual([flaw, flaw], [each.flaw for each in answer.items])

    def test_no_exception(self) -> None:
        """An exception that is not an ``Exception`` fails only the call; the exits end the worker."""
        odd = "throw(type('Odd', (BaseException,), {})('at odds'))"
        self.assertEqual(self._failure(odd), (503, "Prediction failed"))
        self.assertIn("Odd: at odds", self.log.read_text())
        for error in (SystemExit, KeyboardInterrupt):
            self.assertRaises(error, self.worker.answer, job(f"throw({error.__name__})"))

    def test_long_message(self) -> None:
        """A message that is a dump is cut: it is to come through."""
        code, message = self._failure("throw(PredictionException('x' * 10_000_000, 400))")
        self.assertEqual((code, message), (400, "x" * MAX_MESSAGE))

    def test_out_of_resources(self) -> None:
        """Memory that is exhausted, the host's or a device's, is told as such."""
        self.assertEqual(self._failure("throw(MemoryError())"), (507, "Out of resources"))
        self.assertEqual(self._failure("throw(OSError('CUDA error: 2'))"), (507, "Out of resources"))

    def test_not_a_list(self) -> None:
        """Only a list is an answer to a batch."""
        for code in ("'a'", "('a',)", "{'a': 1}", "None", "iter(['a'])"):
            self.assertEqual(self._failure(code), (503, "Invalid model predict output"))

    def test_wrong_length(self) -> None:
        """A list of another length than the batch is refused: its results cannot be assigned to requests."""
        expected = (503, "number of batch response mismatched")
        self.assertEqual(self._failure("[]"), expected)
        self.assertEqual(self._failure("['a']", 2), expected)
        self.assertEqual(self._failure("['a', 'b']"), expected)

    def test_unsupported(self) -> None:
        """A result that cannot be sent is refused, also where it breaks in an unusual way."""
        expected = (503, "Unsupported model output data type.")
        for code in ("[object()]", "['\\ud800']", "[{1, 2}]", "[(lambda a: (a.append(a), a)[1])([])]"):
            self.assertEqual(self._failure(code), expected)

    def test_exit(self) -> None:
        """A handler that ends the process does end it."""
        self.assertRaises(SystemExit, self.worker.answer, job("sys.exit(3)"))
        self.assertRaises(KeyboardInterrupt, self.worker.answer, job("throw(KeyboardInterrupt())"))
        self.assertEqual([item.body for item in self._items("['alive']")], [b"alive"])

    def test_head(self) -> None:
        """Status, phrase, headers and content type are set for each request by itself."""
        items = self._items(
            "[context.set_response_status(201, 'Made', 1), context.set_response_header(1, 'X-A', 'b'),"
            " context.set_response_content_type(0, 'text/plain')] and ['a', 'b']",
            2,
        )
        self.assertEqual(items[0], Item("r0", 200, "", {"content-type": "text/plain"}, b"a"))
        self.assertEqual(items[1], Item("r1", 201, "Made", {"X-A": "b"}, b"b"))

    def test_no_leak(self) -> None:
        """State set for one batch is not there for the next."""
        self._items(
            "[context.set_all_response_status(404, 'Gone'), context.set_response_header(0, 'X-A', 'b')] and ['a']"
        )
        self._failure("[context.set_all_response_status(404, 'Gone')] and throw(ValueError())")
        self.assertEqual(self._items("['a']"), [Item("r0", 200, "", {}, b"a")])

    def test_illegal_head(self) -> None:
        """A head that cannot be sent is the error of that answer alone."""
        items = self._items("[context.set_response_header(0, 'X-A', 'b\\r\\nX-B: c')] and ['a', 'b']", 2)
        self.assertEqual([each.status for each in items], [500, 200])
        self.assertIn("X-A", json.loads(items[0].body)["message"])
        self.assertEqual(items[1].body, b"b")

    def test_too_large(self) -> None:
        """An answer over the limit is the error of that answer alone."""
        items = self._items("['a' * 1001, 'b' * 1000]", 2)
        self.assertEqual([each.status for each in items], [500, 200])
        self.assertEqual(
            json.loads(items[0].body),
            {
                "code": 500,
                "type": "InternalServerException",
                "message": "Response of 1001 bytes exceeds max_response_size, which is 1000",
            },
        )

    def test_not_decoded(self) -> None:
        """With decoding off a handler gets bytes only."""
        with local_worker(self.dir, "h.py", decode_input_request=False) as worker:
            parts = [Part("body", "", b"[str(type(data[0]['n']))]"), Part("n", "application/json", b"1")]
            answer = worker.answer(Job("r", {}, parts))
        assert isinstance(answer, Predicted)
        self.assertEqual(answer.items[0].body, b"<class 'bytearray'>")

    @given(predicts())
    def test_any_batch(self, predict: Predict) -> None:
        """Whatever clients send, each gets exactly one answer, in order, or the batch one failure."""
        with local_worker(self.dir, "h.py") as worker:
            answer = worker.answer(*predict.jobs)
        if isinstance(answer, Predicted):
            self.assertEqual([item.request_id for item in answer.items], [each.request_id for each in predict.jobs])
        else:
            self.assertEqual(answer.code, 503)


class StreamTests(HandlerTestCase):
    """Tests for intermediate responses."""

    def test_chunks(self) -> None:
        """Each chunk is sent immediately with the current head; the returned list is the last one."""
        items = self._items("stream(context, 'a', {'b': 1})")
        self.assertEqual([item.body for item in items], [b"last"])
        expected = [StreamChunk(1, Item("r0", 200, "", {}, body)) for body in (b"a", b'{\n  "b": 1\n}')]
        self.assertEqual(self.worker.outbox.sent, expected)

    def test_some_requests(self) -> None:
        """Chunks can go to some requests of a batch; the old name of the function works."""
        self._items("[by_old_name(['a', 'b'], {1: context.request_ids[1]}, 'x', 200, context)] and ['c', 'd']", 2)
        self.assertEqual(self.worker.outbox.sent, [StreamChunk(1, Item("r1", 200, "", {}, b"b"))])

    def test_cancelled(self) -> None:
        """A chunk for a client that has disconnected is not sent, and the handler can query that."""
        self.worker.outbox.cancelled.add("r0")
        self.assertEqual([item.body for item in self._items("[str(context.is_cancelled(0))]")], [b"True"])
        self.assertEqual([item.body for item in self._items("stream(context, 'a')")], [b"last"])
        self.assertEqual(self.worker.outbox.sent, [])

    def test_code(self) -> None:
        """A code other than 200 ends the batch with its message."""
        code = "send_intermediate_predict_response(['a'], context.request_ids, 'gave up', 504, context)"
        self.assertEqual(self._failure(code), (504, "gave up"))

    def test_unsendable_chunks(self) -> None:
        """A chunk that cannot be sent is the handler's error, and nothing of it is sent."""
        for chunk in ("object()", "'a' * 1001"):
            self.assertEqual(self._failure(f"stream(context, {chunk})"), (503, "Prediction failed"))
        self.assertEqual(self.worker.outbox.sent, [])

    def test_stranger(self) -> None:
        """A chunk goes to requests of this batch only: not to made up ones, nor after the batch."""
        code = "send_intermediate_predict_response(['a'], {0: 'r9'}, 'x', 200, context)"
        self.assertEqual(self._failure(code), (503, "Prediction failed"))
        self._items("[setattr(context, 'later', context.request_ids)] and ['a']")
        code = "send_intermediate_predict_response(['a'], {0: 'r0'}, 'x', 200, context)"
        answer = self.worker.answer(job(code, 1))
        self.assertIsInstance(answer, PredictFailed)
        self.assertEqual(self.worker.outbox.sent, [])

    def test_no_context(self) -> None:
        """Without a context no chunk can be sent."""
        code = "send_intermediate_predict_response(['a'], context.request_ids, 'x', 200)"
        self.assertEqual(self._failure(code), (503, "Prediction failed"))
