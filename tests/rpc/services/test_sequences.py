# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.rpc.services.sequences``, over the planes of a server in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.rpc.services.service_case import RecordingCall, ServiceTestCase
from twisted_serve.errors import WorkerFailed
from twisted_serve.rpc.messages import ErrorInfo, PredictionResponse, PredictionsRequest
from twisted_serve.rpc.methods import INFERENCE
from twisted_serve.rpc.services.sequences import LONGEST_ID
from twisted_serve.rpc.statuses import OK
from twisted_serve.wire.messages import Item, Job

SEQUENCES = """
minWorkers: 1
maxWorkers: 1
batchSize: 4
sequenceBatching: true
maxNumSequence: 4
maxSequenceJobQueueSize: 2
"""

ID, START, END = ("ts_request_sequence_id", "ts_request_sequence_start", "ts_request_sequence_end")


def asked(
    data: bytes = b"1", sequence: str | None = "s", model: str = "m", more: Mapping[str, bytes] | None = None
) -> PredictionsRequest:
    return PredictionsRequest(model_name=model, input={"data": data, **(more or {})}, sequence_id=sequence)


class ConversationTestCase(ServiceTestCase):
    """A call to a stateful model whose worker answers when the test says so."""

    models: Mapping[str, Mapping[str, str]] = {"m": {"model-config.yaml": SEQUENCES}}

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.worker.holding = True

    def begin(self, **call: Any) -> None:
        self.call = RecordingCall(**call)
        converse: Any = self.answers[f"/{INFERENCE}/StreamPredictions2"]
        self.conversation = converse(self.call)

    def send(self, *messages: PredictionsRequest) -> None:
        """Send messages as long as flow control lets them through."""
        for message in messages:
            self.assertFalse(self.call.paused)
            self.conversation.received(message)

    def sent(self) -> list[tuple[str, bytes]]:
        return [(message.sequence_id, message.prediction) for message in self.call.sent]

    def error(self) -> tuple[int, str, str, str | None]:
        """Return the only response, which is an error: code, text, reason, and the sequence."""
        [message] = self.call.sent
        self.call.sent.clear()
        self.assertEqual(message.prediction, b"")
        [detail] = message.status.details
        self.assertEqual(detail.type_url, "type.googleapis.com/google.rpc.ErrorInfo")
        info = ErrorInfo.FromString(detail.value)
        sequence = message.sequence_id if message.HasField("sequence_id") else None
        return message.status.code, message.status.message, info.reason, sequence


class SequenceTests(ConversationTestCase):
    """Sequences of a stateful model."""

    def test_answers(self) -> None:
        """Each message is answered, in order, and the sequence is named in the answer."""
        for data in (b"1", b"2", b"3"):
            self.send(asked(data))
            self.worker.answer()
        self.assertEqual(self.sent(), [("s", b"1"), ("s", b"2"), ("s", b"3")])
        self.assertIsNone(self.call.end)

    def test_headers(self) -> None:
        """
        The handler gets the name of the sequence, and whether it begins or ends.

        TorchServe says with each message that the sequence ends.
        """
        flags: tuple[dict[str, bytes], ...] = ({}, {START: b"TRUE"}, {END: b"True"}, {START: b"false", END: b"1"})
        for flag in flags:
            self.send(asked(more=flag))
            self.worker.answer()
        seen = [{ID: "s"}, {ID: "s", START: "true"}, {ID: "s", END: "true"}, {ID: "s"}]
        self.assertEqual([job.headers for job in self.jobs], seen)
        self.assertEqual([[part.name for part in job.parts] for job in self.jobs][1], ["data", START])
        self.assertEqual(len({job.request_id for job in self.jobs}), 4)

    def test_metadata(self) -> None:
        """A message decides about the sequence, and not the metadata, in whatever case."""
        self.begin(metadata=[(b"ts_request_sequence_id", b"x"), (b"ts_request_sequence_start", b"true"), (b"a", b"b")])
        self.send(asked())
        self.assertEqual(self.jobs[0].headers, {ID: "s", "a": "b"})

    def test_new_sequence(self) -> None:
        """A message that begins a sequence may leave the name to the server, which tells it."""
        self.send(asked(sequence=None, more={START: b"true"}))
        self.worker.answer()
        [(name, _)] = self.sent()
        self.assertRegex(name, "^ts-seq-[0-9a-f-]{36}$")
        self.assertEqual(self.jobs[0].headers, {ID: name, START: "true"})

    def test_several(self) -> None:
        """Sequences of one call are answered side by side."""
        for data, sequence in ((b"1", "a"), (b"2", "b"), (b"3", "a"), (b"4", "b")):
            self.send(asked(data, sequence))
            self.server.advance(0.001)
        self.worker.answer()
        self.assertEqual(self.sent(), [("a", b"1")])
        self.worker.answer()
        self.assertEqual(self.sent()[1:], [("b", b"2"), ("a", b"3")])
        self.worker.answer()
        self.assertEqual(self.sent()[3:], [("b", b"4")])

    def test_flow(self) -> None:
        """
        As many messages of a sequence as its queue may have are unanswered; those behind wait with the client.

        TorchServe refuses them.
        """
        self.send(asked(b"1"), asked(b"2"))
        self.send(asked(b"3"))
        self.assertTrue(self.call.paused)
        self.worker.answer()
        self.assertFalse(self.call.paused)
        self.send(asked(b"4"))
        self.assertTrue(self.call.paused)
        self.conversation.half_closed()
        for _ in range(3):
            self.assertIsNone(self.call.end)
            self.worker.answer()
        self.assertEqual(self.sent(), [("s", b"%d" % number) for number in (1, 2, 3, 4)])
        self.assertEqual((self.call.end, self.call.producer), (OK, None))

    def test_several_held(self) -> None:
        """Messages that arrive although the call is paused are answered, too, in order."""
        for number in range(8):
            self.conversation.received(asked(b"%d" % number))
        for _ in range(8):
            self.worker.answer()
        self.assertEqual([data for _, data in self.sent()], [b"%d" % number for number in range(8)])
        self.assertFalse(self.call.paused)

    def test_half_closed(self) -> None:
        """A client that has sent everything gets all answers; TorchServe's get none."""
        self.send(asked())
        self.conversation.half_closed()
        self.assertIsNone(self.call.end)
        self.worker.answer()
        self.assertEqual((self.sent(), self.call.end, self.call.producer), ([("s", b"1")], OK, None))

    def test_nothing(self) -> None:
        """A call without messages is OK."""
        self.conversation.half_closed()
        self.assertEqual((self.call.sent, self.call.end), ([], OK))

    def test_cancelled(self) -> None:
        """A client that leaves frees the queue and the worker; nothing is sent, and the call is not ended again."""
        self.send(asked(b"1"), asked(b"2"), asked(b"3"))
        self.conversation.cancelled()
        self.assertEqual(self.worker.cancelled, ["job-1"])
        self.worker.answer()
        self.assertEqual((self.call.sent, self.call.end, len(self.jobs)), ([], None, 1))
        [described] = self.server.request("GET", "/models/m").json
        self.assertEqual(described["jobQueueStatus"]["pendingRequests"], 0)

    def test_parts(self) -> None:
        """A streaming handler's parts are responses, each with the name of the sequence."""
        self.send(asked())
        [job] = self.jobs
        self.worker.chunk(self.item(job, b"a"))
        self.worker.chunk(self.item(job, b"b"))
        self.worker.answer([self.item(job, b"c")])
        self.assertEqual(self.sent(), [("s", b"a"), ("s", b"b"), ("s", b"c")])

    def test_back_pressure(self) -> None:
        """A client that does not read pauses its handlers, those that begin then as well, and its own messages."""
        self.send(asked(b"1"), asked(b"2"))
        first = self.jobs[0]
        self.worker.chunk(self.item(first, b"a"))
        self.call.reading.pauseProducing()
        self.assertEqual((self.worker.paused, self.call.paused), ({"job-1"}, True))
        self.worker.answer([self.item(first, b"b")])
        second = self.jobs[1]
        self.worker.chunk(self.item(second, b"c"))
        self.assertEqual((self.worker.paused, self.call.paused), ({"job-1", "job-2"}, True))
        self.call.reading.resumeProducing()
        self.assertNotIn("job-2", self.worker.paused)
        self.assertFalse(self.call.paused)


class ErrorTests(ConversationTestCase):
    """Errors, which are responses; the call goes on."""

    def test_requests(self) -> None:
        """Bad messages have TorchServe's code, text and reason; its call ends as UNKNOWN after some of them."""
        package = "org.pytorch.serve.archive.model."
        for message, expected in (
            (asked(sequence=None), (13, "Parameter sequenceId is required.", "BadRequestException.()", None)),
            (asked(sequence=""), (13, "Parameter sequenceId is required.", "BadRequestException.()", None)),
            (asked(model=""), (13, "Parameter model_name is required.", "BadRequestException.()", "s")),
            (asked(model="nope"), (13, "Model not found: nope", f"{package}ModelNotFoundException", "s")),
            (
                PredictionsRequest(model_name="m", model_version="9", sequence_id="s"),
                (13, "Model version: 9 does not exist for model: m", f"{package}ModelVersionNotFoundException", "s"),
            ),
        ):
            self.send(message)
            self.assertEqual(self.error(), expected)
        self.send(asked())
        self.worker.answer()
        self.assertEqual(self.sent(), [("s", b"1")])

    def test_long_name(self) -> None:
        """A name of a sequence, which the server remembers, has a limit; the answer does not repeat it."""
        self.send(asked(sequence="x" * (LONGEST_ID + 1)))
        text = f"Parameter sequenceId has {LONGEST_ID + 1} characters; it may have {LONGEST_ID} at most."
        self.assertEqual(self.error(), (3, text, "org.pytorch.serve.http.BadRequestException", None))
        self.assertEqual(self.jobs, [])

    def test_control_characters(self) -> None:
        """A name that could not be a header of HTTP is refused: a handler may send it on."""
        for name in ("a\r\nSet-Cookie: x", "a\0", "\x7f"):
            self.send(asked(sequence=name))
            self.assertEqual(self.error()[:2], (3, "Parameter sequenceId has a control character."))
        self.assertEqual(self.jobs, [])

    def test_too_many_inputs(self) -> None:
        self.send(PredictionsRequest(model_name="m", sequence_id="s", input={str(i): b"" for i in range(1001)}))
        self.assertEqual(self.error()[0], 3)

    def test_handler(self) -> None:
        """A handler that raises is an error of one message, which TorchServe does not send."""
        self.send(asked(b"1"), asked(b"2"))
        self.worker.answer(WorkerFailed(503, "Prediction failed"))
        tag = "org.pytorch.serve.http.InternalServerException"
        self.assertEqual(self.error(), (14, "Prediction failed", tag, "s"))
        self.worker.answer()
        self.assertEqual(self.sent(), [("s", b"2")])

    def test_too_many_sequences(self) -> None:
        """A sequence for which there is no room is told to try again, and when."""
        self.send(*(asked(sequence=name) for name in ("a", "b", "c", "d", "e")))
        info = ErrorInfo.FromString(self.call.sent[0].status.details[0].value)
        self.assertEqual(dict(info.metadata), {"retry-after": "1"})
        code, text, reason, sequence = self.error()
        self.assertEqual((code, reason, sequence), (14, "InternalServerException.()", "e"))
        self.assertTrue(text.startswith('Model "m" has no worker to serve inference request.'), text)

    def test_dead_worker(self) -> None:
        """The messages of a sequence whose worker dies fail, and the call goes on."""
        self.send(asked(b"1"), asked(b"2"))
        self.server.provider.holding = True
        self.worker.kill()
        codes = sorted((message.status.code, message.sequence_id) for message in self.call.sent)
        self.assertEqual(codes, [(13, "s"), (14, "s")])
        self.server.advance(60)
        self.call.sent.clear()
        self.send(asked(b"3"))
        self.worker.answer()
        self.assertEqual(self.sent(), [("s", b"3")])


class StatelessTests(ConversationTestCase):
    """A model without sequences: TorchServe's call ends as UNKNOWN."""

    models = {"m": {}}

    def test_order(self) -> None:
        """The messages with one name are answered one by one, in order."""
        self.send(asked(b"1"))
        self.send(asked(b"2"))
        self.assertTrue(self.call.paused)
        self.assertEqual(len(self.jobs), 1)
        self.worker.answer()
        self.assertEqual(len(self.jobs), 2)
        self.worker.answer()
        self.assertEqual(self.sent(), [("s", b"1"), ("s", b"2")])

    def test_side_by_side(self) -> None:
        """Messages with different names do not wait for each other."""
        self.send(asked(b"1", "a"), asked(b"2", "b"))
        self.assertFalse(self.call.paused)
        [described] = self.server.request("GET", "/models/m").json
        self.assertEqual(described["jobQueueStatus"]["pendingRequests"], 1)
        self.worker.answer()
        self.worker.answer()
        self.assertEqual(self.sent(), [("a", b"1"), ("b", b"2")])


class ContinuousTests(ConversationTestCase):
    """A stateful model with continuous batching."""

    models = {
        "m": {"model-config.yaml": SEQUENCES.replace("QueueSize: 2", "QueueSize: 1") + "continuousBatching: true\n"}
    }

    def test_end(self) -> None:
        """A message may join while the one before is being answered: it may be the one that ends it."""
        self.send(asked(b"1"), asked(b"end", more={END: b"true"}))
        self.assertFalse(self.call.paused)
        [first] = self.jobs
        self.worker.answer([Item(first.request_id, 200, "", {}, b"a", more=True)])
        again: list[Job] = self.worker.batches[-1]
        self.assertEqual([job.request_id for job in again], ["job-1", "job-2"])
        self.worker.answer([self.item(job, b"z") for job in again])
        self.assertEqual(self.sent(), [("s", b"a"), ("s", b"z"), ("s", b"z")])


class BoundedTests(ConversationTestCase):
    """What a call leaves in memory."""

    def test_answered(self) -> None:
        """Nothing is left of messages that are answered, and of those that are refused."""
        self.worker.holding = False
        for number in range(50):
            self.send(asked(sequence=f"s{number % 4}"), asked(model=f"nope{number}"))
        conversation = self.conversation
        left = (conversation._answers, conversation._producers, conversation._held, dict(conversation._unanswered))
        self.assertEqual([len(each) for each in left], [0, 0, 0, 0])
        self.assertEqual(len([each for each in self.call.sent if isinstance(each, PredictionResponse)]), 100)
