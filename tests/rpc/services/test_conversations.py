# SPDX-License-Identifier: Apache-2.0
"""Properties of calls of StreamPredictions2: any order of messages, answers, failures, pauses and ends."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rpc.services.service_case import RecordingCall
from twisted_serve.errors import WorkerFailed
from twisted_serve.rpc.messages import PredictionsRequest
from twisted_serve.rpc.services.sequences import SequenceConversation
from twisted_serve.rpc.statuses import OK
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.testing.server import MemoryServer

SEQUENCES = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxNumSequence: 3\nmaxSequenceJobQueueSize: 2\n"
MODELS: Any = {"m": {"model-config.yaml": SEQUENCES + "sequenceBatching: true\n"}, "plain": {}}

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(["m", "plain", "nope"]), st.sampled_from("abcd")),
        st.tuples(st.sampled_from(["answer", "fail"]), st.sampled_from(["m", "plain"])),
        st.sampled_from([("pause",), ("resume",)]),
    ),
    max_size=40,
)


class Talk:
    """A call to a server whose workers answer when they are told to, and what its client has sent."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        for worker in server.provider.workers:
            worker.holding = True
        self.call = RecordingCall()
        calls: Any = server.server._find_calls()
        self.conversation = SequenceConversation(self.call, calls.predictions._plane, {}, SequenceHeaders())
        self.stalled = False
        self.asked: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.waiting: list[PredictionsRequest] = []
        self.count = 0

    def send(self, model: str, sequence: str) -> None:
        self.count += 1
        data = b"%d" % self.count
        self.asked[model, sequence].append(data)
        name = f"{model}.{sequence}"
        self.waiting.append(PredictionsRequest(model_name=model, input={"data": data}, sequence_id=name))
        self.deliver()

    def deliver(self) -> None:
        """Hand over what flow control lets through."""
        while self.waiting and not self.call.paused:
            self.conversation.received(self.waiting.pop(0))

    def work(self, model: str, error: WorkerFailed | None = None) -> None:
        for worker in self.server.provider.workers:
            if worker.spec.load.model_name == model:
                worker.answer(error)
        self.deliver()

    def read(self, reads: bool) -> None:
        if reads == self.stalled and self.call.producer is not None:
            self.stalled = not reads
            (self.call.producer.resumeProducing if reads else self.call.producer.pauseProducing)()
            self.deliver()

    def step(self, what: str, *arguments: str) -> None:
        if what == "send":
            self.send(*arguments)
        elif what in {"answer", "fail"}:
            self.work(arguments[0], WorkerFailed(503, "Prediction failed") if what == "fail" else None)
        else:
            self.read(what == "resume")

    def finish(self) -> None:
        """Let everything be answered, and close the client's side."""
        self.read(True)
        for _ in range(100):
            for model in ("m", "plain"):
                self.work(model)
        assert not self.waiting
        self.conversation.half_closed()

    def left(self) -> list[int]:
        """Return the sizes of what the conversation still has."""
        conversation = self.conversation
        return [
            len(each)
            for each in (conversation._answers, conversation._producers, conversation._unanswered, conversation._held)
        ]


@settings(max_examples=30)
@given(STEPS)
def test_all_is_answered_in_order(steps: list[tuple[str, ...]]) -> None:
    """Each message has one answer, those of one sequence are in order, and then the call ends."""
    with MemoryServer({"disable_token_authorization": True}, models=MODELS) as server:
        talk = Talk(server)
        for step in steps:
            talk.step(*step)
        talk.finish()
        assert talk.call.end is OK
        assert len(talk.call.sent) == talk.count
        assert talk.left() == [0, 0, 0, 0]
        answers: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        for message in talk.call.sent:
            model, _, sequence = message.sequence_id.partition(".")
            if not message.HasField("status"):
                answers[model, sequence].append(message.prediction)
        for key, given_ in answers.items():
            positions = [talk.asked[key].index(data) for data in given_]
            assert positions == sorted(positions)
        assert not any(model == "nope" for model, _ in answers)


@settings(max_examples=20)
@given(STEPS)
def test_nothing_is_left_of_a_cancelled_call(steps: list[tuple[str, ...]]) -> None:
    """After a call is cancelled nothing is sent, and its queues and workers are free."""
    with MemoryServer({"disable_token_authorization": True}, models=MODELS) as server:
        talk = Talk(server)
        for step in steps:
            talk.step(*step)
        talk.conversation.cancelled()
        sent = len(talk.call.sent)
        for _ in range(5):
            talk.work("m")
            talk.work("plain")
        assert (len(talk.call.sent), talk.call.end) == (sent, None)
        assert talk.left() == [0, 0, 0, 0]
        assert all(not worker.busy for worker in server.provider.workers)
        for model in ("m", "plain"):
            assert server.request("GET", f"/models/{model}").json[0]["jobQueueStatus"]["pendingRequests"] == 0
