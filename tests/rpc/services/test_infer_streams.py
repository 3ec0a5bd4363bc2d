# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.services.infer_streams`: Triton's bidirectional inference."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from tests.rpc.services.open_inference_case import OpenInferenceTestCase, item, parameter, request, tensor
from tests.rpc.services.service_case import RecordingCall
from twisted_serve.errors import WorkerFailed
from twisted_serve.openinference.pieces import MOST_AT_ONCE
from twisted_serve.rpc.messages import ModelInferRequest, ModelStreamInferResponse
from twisted_serve.rpc.methods import KSERVE
from twisted_serve.rpc.services.infer_streams import MOST_BYTES, MOST_REQUESTS
from twisted_serve.rpc.statuses import OK


def output(text: str) -> Any:
    """Return an answer with a text."""
    return {"outputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]}


def numbered(i: int, model: str = "m", **members: Any) -> ModelInferRequest:
    """Return a request with a number as its id and tensor."""
    return request(tensor("x", "INT32", [1], int_contents=[i]), id=str(i), model=model, **members)


class StreamTests(OpenInferenceTestCase):
    """A call of ``ModelStreamInfer``."""

    options = {"job_queue_size": 200}

    def converse(self, call: RecordingCall | None = None) -> None:
        self.call = call or RecordingCall()
        converse: Any = self.answers[f"/{KSERVE}/ModelStreamInfer"]
        self.conversation = converse(self.call)

    def setUp(self) -> None:
        super().setUp()
        self.converse()

    @property
    def sent(self) -> list[ModelStreamInferResponse]:
        return [ModelStreamInferResponse.FromString(each.SerializeToString()) for each in self.call.sent]

    @property
    def texts(self) -> list[tuple[str, bool]]:
        """What was sent: the text of each response, and whether it is the final one."""
        return [
            (
                b"".join(part for one in each.infer_response.outputs for part in one.contents.bytes_contents).decode(),
                each.infer_response.parameters["triton_final_response"].bool_param,
            )
            for each in self.sent
        ]

    @property
    def ids(self) -> list[str]:
        return [each.infer_response.id for each in self.sent]

    def test_requests(self) -> None:
        """Each message is a request with its own job; the call ends after the last answer."""
        for i in range(3):
            self.conversation.received(numbered(i))
        self.assertEqual(self.ids, ["0", "1", "2"])
        self.assertEqual(
            [[*each.infer_response.outputs[0].contents.int_contents] for each in self.sent], [[0], [1], [2]]
        )
        names = [job.request_id for batch in self.server.provider.batches for job in batch]
        self.assertEqual(names, ["job-1", "job-2", "job-3"])
        self.assertIsNone(self.call.end)
        self.conversation.half_closed()
        self.assertEqual(self.call.end, OK)
        self.assertIsNone(self.call.producer)

    def test_parts(self) -> None:
        """A handler's parts are responses; the last one is marked, and left out if it is empty."""
        self.worker.holding = True
        for wanted in (False, True):
            message = numbered(1, parameters={"triton_enable_empty_final_response": parameter(wanted)})
            self.conversation.received(message)
            [[job]] = self.worker.running
            for text in "ab":
                self.worker.chunk(item(job.request_id, output(text)))
            self.worker.answer([item(job.request_id, b"")])
        self.assertEqual(self.texts, [("a", False), ("b", False), ("a", False), ("b", False), ("", True)])
        self.assertEqual(self.ids, ["1"] * 5)
        self.conversation.received(numbered(1))
        [[job]] = self.worker.running
        self.worker.chunk(item(job.request_id, output("a")))
        self.worker.answer([item(job.request_id, output("b"))])
        self.assertEqual(self.texts[5:], [("a", False), ("b", True)])

    def test_error(self) -> None:
        """An error is a response with the id of its request, and the call goes on."""
        self.conversation.received(numbered(1, model="absent"))
        self.conversation.received(request(tensor("x", "INT8", [2], int_contents=[1]), id="2"))
        self.server.provider.respond = lambda _jobs: WorkerFailed(503, "Prediction failed")
        self.conversation.received(numbered(3))
        self.respond(b"no protocol")
        self.conversation.received(numbered(4))
        self.respond(output("a"))
        self.conversation.received(numbered(5))
        self.assertEqual(self.ids, ["1", "2", "3", "4", "5"])
        errors = [each.error_message for each in self.sent]
        self.assertEqual(errors[0], "Model not found: absent")
        self.assertIn("inputs[0].shape is [2]", errors[1])
        self.assertEqual(errors[2], "Prediction failed")
        self.assertIn("Open Inference Protocol", errors[3])
        self.assertEqual((errors[4], self.texts[4]), ("", ("a", True)))
        self.conversation.half_closed()
        self.assertEqual(self.call.end, OK)

    def test_empty(self) -> None:
        """An empty answer without parts before it is no last response, but an error."""
        self.respond(b"")
        self.conversation.received(numbered(1))
        self.assertIn("begins with b''", self.sent[0].error_message)

    def test_bad_part(self) -> None:
        """A part that cannot be sent ends its request with one error, and frees the worker."""
        self.worker.holding = True
        self.conversation.received(numbered(1))
        [[job]] = self.worker.running
        self.worker.chunk(item(job.request_id, output("a")))
        self.worker.chunk(item(job.request_id, b"no protocol"))
        self.worker.chunk(item(job.request_id, output("b")))
        self.assertEqual(self.worker.cancelled, [job.request_id])
        self.assertEqual(len(self.sent), 2)
        self.assertIn("begins with b'no protocol'", self.sent[1].error_message)
        self.worker.answer([item(job.request_id, b"")])
        self.conversation.half_closed()
        self.assertEqual((len(self.sent), self.call.end), (2, OK))

    def test_half_closed_early(self) -> None:
        """Answers that are pending when the client has no more messages are sent."""
        self.worker.holding = True
        self.conversation.received(numbered(1))
        self.conversation.half_closed()
        self.assertIsNone(self.call.end)
        self.worker.answer()
        self.assertEqual((self.ids, self.call.end), (["1"], OK))

    def test_cancelled(self) -> None:
        """A call that is over frees its workers and queue, and sends nothing."""
        self.worker.holding = True
        for i in range(3):
            self.conversation.received(numbered(i))
        self.conversation.cancelled()
        self.assertEqual(self.worker.cancelled, ["job-1"])
        self.worker.answer()
        self.assertEqual((self.sent, self.call.end, len(self.worker.batches)), ([], None, 1))

    def test_deadline(self) -> None:
        """The deadline of the call is that of each job."""
        self.converse(RecordingCall(deadline=self.server.clock.seconds() + 2))
        self.worker.holding = True
        self.conversation.received(numbered(1))
        self.server.advance(2.1)
        self.assertIn("within the time", self.sent[0].error_message)

    def test_flow_of_requests(self) -> None:
        """A client that sends faster than it is answered is held back."""
        self.worker.holding = True
        for i in range(MOST_REQUESTS):
            self.assertFalse(self.call.paused)
            self.conversation.received(numbered(i))
        self.assertTrue(self.call.paused)
        self.worker.answer()
        self.assertFalse(self.call.paused)

    def test_flow_of_bytes(self) -> None:
        """So is one whose requests are large: as many bytes are held as one message may have, and a bound."""
        self.worker.holding = True
        data = bytes(MOST_BYTES // 2)
        for paused in (False, True):
            self.conversation.received(request(tensor("x", "UINT8", [len(data)]), raw_input_contents=[data]))
            self.assertEqual(self.call.paused, paused)
        self.worker.answer()
        self.assertFalse(self.call.paused)

    def test_slow_client(self) -> None:
        """A client that does not read pauses its handlers, one that begins meanwhile, too; and sends no more."""
        self.worker.holding = True
        self.conversation.received(numbered(1))
        [[job]] = self.worker.running
        self.worker.chunk(item(job.request_id, output("a")))
        self.call.reading.pauseProducing()
        self.assertEqual((self.worker.paused, self.call.paused), ({job.request_id}, True))
        self.call.reading.resumeProducing()
        self.assertEqual((self.worker.paused, self.call.paused), (set(), False))
        self.worker.answer([item(job.request_id, b"")])
        self.conversation.received(numbered(2))
        [[job]] = self.worker.running
        self.call.reading.pauseProducing()
        self.worker.chunk(item(job.request_id, output("a")))
        self.assertEqual(self.worker.paused, {job.request_id})
        self.call.reading.resumeProducing()
        self.assertEqual(self.worker.paused, set())

    def test_order(self) -> None:
        """Parts and requests keep their order although large ones are converted in threads meanwhile."""
        work: list[tuple[Deferred[Any], Any, Any]] = []

        def defer(function: Any, *args: Any) -> Deferred[Any]:
            waiting: Deferred[Any] = Deferred()
            work.append((waiting, function, args))
            return waiting

        def run() -> None:
            waiting, function, args = work.pop(0)
            maybeDeferred(function, *args).chainDeferred(waiting)

        self.threads = defer
        super().setUp()
        self.converse()
        self.worker.holding = True
        data = bytes(MOST_AT_ONCE)
        self.conversation.received(request(tensor("x", "UINT8", [len(data)]), raw_input_contents=[data], id="1"))
        self.conversation.received(numbered(2))
        self.assertEqual(self.worker.running, [])
        run()
        [[job]] = self.worker.running
        self.assertEqual(job.request_id, "job-1")
        large = "x" * MOST_AT_ONCE
        self.worker.chunk(item(job.request_id, output(large)))
        self.assertEqual(self.worker.paused, {job.request_id})
        self.worker.chunk(item(job.request_id, output("b")))
        self.worker.answer([item(job.request_id, output("c"))])
        self.assertEqual(self.sent, [])
        run()
        # Raw, because the request was.
        texts = [each.infer_response.raw_output_contents[0][4:].decode() for each in self.sent]
        self.assertEqual(texts, [large, "b", "c"])

    def test_cancelled_in_thread(self) -> None:
        """Requests that wait for a thread when the call ends are not begun."""
        work: list[Deferred[Any]] = []

        def defer(_function: Any, *_args: Any) -> Deferred[Any]:
            work.append(Deferred())
            return work[-1]

        self.threads = defer
        super().setUp()
        self.converse()
        data = bytes(MOST_AT_ONCE)
        self.conversation.received(request(tensor("x", "UINT8", [len(data)]), raw_input_contents=[data]))
        for i in range(3):
            self.conversation.received(numbered(i))
        self.conversation.cancelled()
        work[0].callback(None)
        self.assertEqual((self.server.provider.batches, self.sent, self.call.end), ([], [], None))

    def test_bug(self) -> None:
        """A bug in a request is an error in its place, without details."""
        self.inference.find = lambda *_args: 1 / 0
        self.conversation.received(numbered(1))
        [sent] = self.sent
        self.assertEqual((sent.error_message, sent.infer_response.id), ("Internal server error.", "1"))
