# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.service`, with handlers as they stand in archives."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.backend.model_log import model_log
from twisted_serve.backend import gathering
from twisted_serve.backend.call import MAX_MESSAGE
from twisted_serve.testing.local_worker import local_worker
from twisted_serve.testing.strategies.wire import predicts
from twisted_serve.wire.messages import Item, Job, Part, Predict, Predicted, PredictFailed, StreamChunk

# Does what the body of the first request tells it to.
HANDLER = """
import copy, os, sys
from contextvars import copy_context
from fractions import Fraction
from threading import Thread
from ts.metrics.dimension import Dimension
from ts.utils.util import PredictionException
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.protocol.otf_message_handler import send_intermediate_predict_response as by_old_name

def handle(data, context):
    if data is not None:
        return eval(bytes(data[0]["body"]), globals() | locals())

def throw(error):
    raise error

def fork(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    os.waitpid(child, 0)

def stream(context, *chunks):
    for chunk in chunks:
        send_intermediate_predict_response([chunk], context.request_ids, "Intermediate", 200, context)
    return ["last"]
"""


def job(code: str, number: int = 0) -> Job:
    return Job(f"r{number}", {}, [Part("body", "", code.encode())])


class HandlerTestCase(SynchronousTestCase):
    """A loaded handler that does what it is told."""

    settings: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "h.py").write_text(HANDLER)
        self.log = model_log(self)
        context = local_worker(self.dir, "h.py", max_response_size=1000, **self.settings)
        self.worker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def _failure(self, code: str, jobs: int = 1) -> tuple[int, str]:
        answer = self.worker.answer(*(job(code, number) for number in range(jobs)))
        assert isinstance(answer, PredictFailed), answer
        return answer.code, answer.message

    def _items(self, code: str, jobs: int = 1) -> list[Item]:
        answer = self.worker.answer(*(job(code, number) for number in range(jobs)))
        assert isinstance(answer, Predicted), answer
        return answer.items


class ServiceTests(HandlerTestCase):
    """What becomes of what a handler does."""

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
        """Any other exception says nothing to the client, and everything to the model log."""
        self.assertEqual(self._failure("throw(ValueError('secret'))", 3), (503, "Prediction failed"))
        logged = self.log.read_text()
        self.assertTrue(logged.startswith("Invoking custom service failed.\nTraceback (most recent call last):\n"))
        self.assertIn("ValueError: secret", logged)

    def test_no_exception(self) -> None:
        """What is raised without being an ``Exception`` fails the call only; what asks for the end is obeyed."""
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
        """A list that is not as long as the batch is refused: nobody knows whose answers these are."""
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
        """What was set for one batch is not there for the next."""
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
    """What a handler sends before it returns."""

    def test_chunks(self) -> None:
        """Each chunk is sent at once with the head as it is then; the list is the last one."""
        items = self._items("stream(context, 'a', {'b': 1})")
        self.assertEqual([item.body for item in items], [b"last"])
        expected = [StreamChunk(1, Item("r0", 200, "", {}, body)) for body in (b"a", b'{\n  "b": 1\n}')]
        self.assertEqual(self.worker.outbox.sent, expected)

    def test_some_requests(self) -> None:
        """Chunks can go to some requests of a batch; the old name of the function works."""
        self._items("[by_old_name(['a', 'b'], {1: context.request_ids[1]}, 'x', 200, context)] and ['c', 'd']", 2)
        self.assertEqual(self.worker.outbox.sent, [StreamChunk(1, Item("r1", 200, "", {}, b"b"))])

    def test_cancelled(self) -> None:
        """A chunk for a client that has gone is not sent, and the handler can know."""
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
        """Without a context there is nobody to send to."""
        code = "send_intermediate_predict_response(['a'], context.request_ids, 'x', 200)"
        self.assertEqual(self._failure(code), (503, "Prediction failed"))


class MetricTests(HandlerTestCase):
    """Which way metrics take."""

    def setUp(self) -> None:
        super().setUp()
        # Whatever else this machine is at.
        self.patch(gathering, "LONGEST_WAIT", 600.0)
        self.output = io.StringIO()
        self.patch(sys, "stdout", self.output)

    def _printed(self) -> list[str]:
        lines = self.output.getvalue().splitlines()
        self.output.seek(0)
        self.output.truncate()
        self.assertTrue(all(line.startswith("[METRICS]") for line in lines), lines)
        return [line[len("[METRICS]") :].partition(".")[0] for line in lines]

    def _sent(self, code: str, jobs: int = 1) -> list[tuple[str, str]]:
        metrics = self.worker.answer(*(job(code, number) for number in range(jobs))).metrics
        return [(each.name, each.request_ids) for each in metrics]

    def test_with_the_answer(self) -> None:
        """Once it is known that answers come soon, metrics come with them, in order and with their requests."""
        self.assertEqual(self._sent("['a']"), [])
        self.assertEqual(self._printed(), ["PredictionTime"])
        code = "[context.metrics.add_counter('A', 1), context.metrics.add_time('B', 2, 1)] and ['a', 'b']"
        self.assertEqual(self._sent(code, 2), [("A", "r0,r1"), ("B", "r1"), ("PredictionTime", "r0,r1")])
        self.assertEqual(self._printed(), [])

    def test_with_the_failure(self) -> None:
        """What was emitted before a failure comes with it, whatever failed."""
        self._sent("['a']")
        emit = "context.metrics.add_counter('A', 1)"
        self.assertEqual(self._sent(f"[{emit}, throw(ValueError())]"), [("A", "r0")])
        self.assertEqual(self._sent(f"[{emit}, throw(PredictionException('no', 404))]"), [("A", "r0")])
        for result in ("'no list'", "[]", "[object()]"):
            self.assertEqual(self._sent(f"({emit}, {result})[1]"), [("A", "r0"), ("PredictionTime", "r0")])

    def test_before_the_end(self) -> None:
        """Who ends the process is not answered: what was emitted is printed."""
        self._sent("['a']")
        self._printed()
        self.assertRaises(SystemExit, self.worker.answer, job("[context.metrics.add_counter('A', 1), sys.exit(3)]"))
        self.assertEqual(self._printed(), ["A"])

    def test_before_a_chunk(self) -> None:
        """A stream may be long: what was emitted before a chunk is not kept until the end."""
        self._sent("['a']")
        self._printed()
        code = (
            "(context.metrics.add_counter('A', 1), stream(context, 'a'), context.metrics.add_counter('B', 1), ['b'])[3]"
        )
        self.assertEqual(self._sent(code), [("B", "r0"), ("PredictionTime", "r0")])
        self.assertEqual(self._printed(), ["A"])

    def test_between_batches(self) -> None:
        """What is emitted while nothing is being answered is printed, also by what a batch has left behind."""
        self._sent("['a']")
        self._sent("(setattr(sys.modules['h'], 'left', (context.metrics, copy_context())), ['a'])[1]")
        self._printed()
        metrics, there = sys.modules["h"].left
        metrics.add_counter("A", 1)
        there.run(metrics.add_counter, "B", 1)
        self.assertEqual(self._printed(), ["A", "B"])
        self.assertEqual(self._sent("['a']"), [("PredictionTime", "r0")])

    def test_from_a_thread(self) -> None:
        """What another thread emits counts, whether it knows of the batch or not."""
        self._sent("['a']")
        self._printed()
        start = "(lambda f: (f.start(), f.join()))(Thread(target={}))"
        plain = start.format("lambda: context.metrics.add_counter('A', 1)")
        aware = start.format("lambda here=copy_context(): here.run(context.metrics.add_counter, 'B', 1)")
        self.assertEqual(self._sent(f"({plain}, {aware}, ['a'])[2]"), [("B", "r0"), ("PredictionTime", "r0")])
        self.assertEqual(self._printed(), ["A"])

    def test_from_a_child(self) -> None:
        """What a process emits that the handler has forked is printed there, once."""
        self._sent("['a']")
        sys.stdout.flush()
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        code = (
            f"(context.metrics.add_counter('A', 1), fork(lambda: (setattr(sys, 'stdout', open({writing}, 'w')),"
            " context.metrics.add_counter('B', 1), sys.stdout.close())), ['a'])[2]"
        )
        self.assertEqual(self._sent(code), [("A", "r0"), ("PredictionTime", "r0")])
        os.close(writing)
        printed = os.read(reading, 10_000).decode().splitlines()
        self.assertEqual([line.partition(".")[0] for line in printed], ["[METRICS]B"])

    def test_copied(self) -> None:
        """A copy of the metrics, by whatever means, is as good as they are."""
        self._sent("['a']")
        for copied in ("copy.copy(context.metrics)", "copy.deepcopy(context.metrics)"):
            code = f"({copied}.add_counter('A', 1), ['a'])[1]"
            self.assertEqual(self._sent(code), [("A", "r0"), ("PredictionTime", "r0")])

    def test_not_to_be_sent(self) -> None:
        """A metric that the wire cannot carry breaks no answer: it is printed."""
        self._sent("['a']")
        self._printed()
        for metric in (
            "add_metric('A', 10**30, '')",
            "add_metric('A', float('inf'), '')",
            "add_metric('A', Fraction(1, 2), '')",
            "add_metric('A', 1, '', dimensions=[Dimension('x', chr(0xD800))])",
            "add_metric('A', 1, '', dimensions=[Dimension('x', 'a' + chr(10) + 'b')])",
            "add_metric('A', 1, '', dimensions=[Dimension('x', 'a' * 5000)])",
            "add_metric_to_cache(type('Text', (str,), {})('A'), 'ms').update(1)",
            "add_metric_to_cache('A', 'ms').add_or_update(1, request_id=5)",
        ):
            self.assertEqual(self._sent(f"(context.metrics.{metric}, ['a'])[1]"), [("PredictionTime", "r0")], metric)
            self.assertEqual(self._printed(), ["A"], metric)


class ContinuousTests(HandlerTestCase):
    """How a handler of a model with continuous batching says that it is not done with a request."""

    settings: ClassVar[dict[str, Any]] = {"continuous": True}

    def _more(self, code: str, jobs: int = 1) -> list[bool]:
        return [item.more for item in self._items(code, jobs)]

    def test_criteria(self) -> None:
        """A criterion is asked about its result: ``False`` says that there is more, ``None`` that it is no stream."""
        criteria = "[lambda text: text != 'a', lambda text: True, lambda text: None]"
        code = f"(setattr(context, 'stopping_criteria', {criteria}), ['a', 'b', 'c'])[1]"
        self.assertEqual(self._more(code, 3), [True, False, False])

    def test_criteria_stay(self) -> None:
        """Criteria hold until others are set, a dictionary will do; who sets none gives whole answers."""
        self.assertEqual(self._more("['a']"), [False])
        self.assertEqual(self._more("(setattr(context, 'stopping_criteria', {0: lambda _: False}), ['a'])[1]"), [True])
        self.assertEqual(self._more("['a']"), [True])
        self.assertEqual(self._more("(setattr(context, 'stopping_criteria', None), ['a'])[1]"), [False])

    def test_header(self) -> None:
        """Without criteria a header says so; clients do not see it."""
        for value, more in (("true", True), ("false", False), ("yes", False)):
            [item] = self._items(f"(context.set_response_header(0, 'TS_stream_next', {value!r}), ['a'])[1]")
            self.assertEqual((item.more, item.headers), (more, {}))

    def test_criterion_sets_header(self) -> None:
        """What a criterion does to an answer's head counts, whichever answer's it is."""
        criteria = "[lambda _: None, lambda _: context.set_response_header(0, 'x-end', 'yes')]"
        items = self._items(f"(setattr(context, 'stopping_criteria', {criteria}), ['a', 'b'])[1]", 2)
        self.assertEqual([item.headers for item in items], [{"x-end": "yes"}, {}])

    def test_broken_criteria(self) -> None:
        """A criterion that raises, or is missing, fails the batch as the handler would have."""
        for criteria in ("[lambda _: 1 / 0, lambda _: True]", "[lambda _: True]", "[1, 2]"):
            failed = self._failure(f"(setattr(context, 'stopping_criteria', {criteria}), ['a', 'b'])[1]", 2)
            self.assertEqual(failed, (503, "Prediction failed"))
        self.assertIn("ZeroDivisionError", self.log.read_text())

    def test_refused(self) -> None:
        """A piece that cannot be sent is its request's end."""
        code = "(setattr(context, 'stopping_criteria', [lambda _: False] * 2), ['a' * 1001, 'b'])[1]"
        self.assertEqual([(item.status, item.more) for item in self._items(code, 2)], [(500, False), (200, True)])

    def test_repeated(self) -> None:
        """A request that goes on has no inputs, but its headers."""
        answer = self.worker.answer(
            job("[repr(data[1]), context.get_request_header(1, 'X')]", 0), Job("r1", {"x": "y"}, [])
        )
        assert isinstance(answer, Predicted)
        self.assertEqual([item.body for item in answer.items], [b"{}", b"y"])

    def test_description(self) -> None:
        """A description is whole, whatever criterion is left from the call before."""
        self._items("(setattr(context, 'stopping_criteria', [lambda _: False]), ['a'])[1]")
        answer = self.worker.answer(Job("d", {"describe": "True"}, [Part("body", "", b"['it is a model']")]))
        assert isinstance(answer, Predicted)
        self.assertFalse(answer.items[0].more)


class NotContinuousTests(HandlerTestCase):
    """The same of a model without it."""

    def test_whole(self) -> None:
        """Criteria are not asked; each answer is whole."""
        self.assertFalse(self._items("(setattr(context, 'stopping_criteria', [lambda _: 1 / 0]), ['a'])[1]")[0].more)
