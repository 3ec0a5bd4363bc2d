# SPDX-License-Identifier: Apache-2.0
"""
Answer the messages of a bidirectional call: each is a request of a sequence.

The responses of one sequence are in the order of its messages; those of others may come between them.  An error is a
response, too, and the call goes on.  A client that sends faster than its sequences are answered, or does not read, is
held back by flow control, not refused (``docs/torchserve/grpc_workflows_kserve.md`` §1.8).
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import count

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.errors import BadRequest, ServeError
from twisted_serve.planes.inference import SharedInference
from twisted_serve.rpc.contracts import ConversationCall
from twisted_serve.rpc.messages import Any, ErrorInfo, PredictionResponse, PredictionsRequest, Status
from twisted_serve.rpc.services.jobs import model_of, parts_of
from twisted_serve.rpc.services.torchserve import ParameterRequired, prediction_error
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.wire.header_text import CONTROL
from twisted_serve.wire.messages import Item, Job

# In characters. The server remembers the names of sequences that are over.
LONGEST_ID = 1024

_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


@frozen
class _Sequence:
    """
    A sequence of one version of a model: its messages are answered in their order.

    :ivar most: The most unanswered messages.
    """

    model: str
    version: str
    id: str
    most: int


@frozen
class _Request:
    """
    A message as a job.

    :ivar number: 1 for the first of the call.
    :ivar version: As in the message.
    """

    number: int
    sequence: _Sequence
    version: str | None
    job: Job


@implementer(IPushProducer)
class SequenceConversation:
    """
    The server's side of one call.

    It is also the producer of the responses: a client that does not read them pauses the handlers of its sequences.

    :param headers: The client's headers for handlers.
    :param names: The names of the sequence headers; `start` and `end` are also names of inputs.
    """

    def __init__(
        self, call: ConversationCall, plane: SharedInference, headers: dict[str, str], names: SequenceHeaders
    ) -> None:
        self._call = call
        self._plane = plane
        self._names = names
        # A message says which sequence it belongs to, whatever the metadata of the call say.
        reserved = {name.lower() for name in (names.id, names.start, names.end)}
        self._headers = {name: value for name, value in headers.items() if name.lower() not in reserved}
        self._numbers = count(1)
        self._answers: dict[int, Deferred[Item]] = {}
        self._producers: dict[int, IPushProducer] = {}
        self._unanswered: Counter[_Sequence] = Counter()
        # The first one's sequence has as many unanswered messages as it may have; usually it is the only one.
        self._held: deque[_Request] = deque()
        self._paused = False
        self._stalled = False
        self._half_closed = False
        self._over = False
        call.registerProducer(self, True)

    def received(self, message: PredictionsRequest) -> None:
        """Submit a message, or hold it until its sequence has room."""
        try:
            request = self._request_of(message)
        except ServeError as e:
            self._send_error(e, "" if len(message.sequence_id) > LONGEST_ID else message.sequence_id)
            return
        if self._held or self._unanswered[request.sequence] >= request.sequence.most:
            self._held.append(request)
            self._update_flow()
        else:
            self._submit(request)

    def half_closed(self) -> None:
        """End the call after the last answer."""
        self._half_closed = True
        self._finish_if_done()

    def cancelled(self) -> None:
        """Cancel all jobs that are not answered."""
        self._over = True
        self._held.clear()
        for answer in list(self._answers.values()):
            answer.cancel()

    def pauseProducing(self) -> None:
        """Pause the handlers, and accept no further message: the client does not read."""
        self._stalled = True
        self._update_flow()
        for producer in list(self._producers.values()):
            producer.pauseProducing()

    def resumeProducing(self) -> None:
        """Continue: the client reads again."""
        self._stalled = False
        for producer in list(self._producers.values()):
            producer.resumeProducing()
        self._go_on()

    def stopProducing(self) -> None:
        """Do nothing: `cancelled` is called as well."""

    def _request_of(self, message: PredictionsRequest) -> _Request:
        """
        Return the request that a message is.

        :raise ServeError: if there is no such model, or no sequence.
        """
        starts = self._is_true(message, self._names.start)
        if not (message.sequence_id or starts):
            raise ParameterRequired("Parameter sequenceId is required.")
        if len(message.sequence_id) > LONGEST_ID:
            raise BadRequest(
                f"Parameter sequenceId has {len(message.sequence_id)} characters; it may have {LONGEST_ID} at most."
            )
        if CONTROL.search(message.sequence_id):
            # It is a header for the handler, which may send it on.
            raise BadRequest("Parameter sequenceId has a control character.")
        name, version = model_of(message)
        model, number = self._plane.seen_by(self._call.sender).find(name, version), next(self._numbers)
        headers = {**self._headers, self._names.id: message.sequence_id}
        if starts:
            headers[self._names.start] = "true"
        if self._is_true(message, self._names.end):
            headers[self._names.end] = "true"
        job = self._names.named(Job(f"{self._call.job_id}-{number}", headers, parts_of(message)))
        limits = model.settings.sequences
        # Without a queue for each sequence, one at a time keeps their order.
        most = 1 if limits is None else limits.waiting + model.settings.continuous
        return _Request(number, _Sequence(name, model.version, self._names.sequence_of(job), most), version, job)

    def _is_true(self, message: PredictionsRequest, name: str) -> bool:
        return name in message.input and message.input[name].lower() == b"true"

    def _submit(self, request: _Request) -> None:
        sequence, number = request.sequence, request.number

        def chunk(item: Item, producer: IPushProducer) -> None:
            if number not in self._producers:
                self._producers[number] = producer
                if self._stalled:
                    producer.pauseProducing()
            self._send_item(item, sequence)

        def failed(failure: Failure) -> None:
            if not self._over:
                self._send_error(self._call.error_of(failure), sequence.id)

        def done(_result: None) -> None:
            self._unanswered[sequence] -= 1
            if not self._unanswered[sequence]:
                del self._unanswered[sequence]
            del self._answers[number]
            self._producers.pop(number, None)
            self._go_on()

        self._unanswered[sequence] += 1
        timing = self._call.timing if number == 1 else None
        answer = self._answers[number] = maybeDeferred(
            self._plane.seen_by(self._call.sender).predict,
            sequence.model,
            request.version,
            request.job,
            chunk,
            self._call.deadline,
            timing,
        )
        answer.addCallback(self._send_item, sequence).addErrback(failed).addCallback(done).addErrback(self._fail)

    def _go_on(self) -> None:
        """Submit the messages that have room now, and accept others."""
        if self._over:
            return
        while self._held and self._unanswered[self._held[0].sequence] < self._held[0].sequence.most:
            self._submit(self._held.popleft())
        self._update_flow()
        self._finish_if_done()

    def _update_flow(self) -> None:
        paused = self._stalled or bool(self._held)
        if paused != self._paused:
            self._paused = paused
            (self._call.pause_messages if paused else self._call.resume_messages)()

    def _finish_if_done(self) -> None:
        if self._half_closed and not (self._over or self._answers or self._held):
            self._over = True
            self._call.unregisterProducer()
            self._call.finish()

    def _fail(self, failure: Failure) -> None:
        """End the call, because of a bug."""
        if not self._over:
            self.cancelled()
            self._call.fail(failure)

    def _send_item(self, item: Item, sequence: _Sequence) -> None:
        self._call.send(PredictionResponse(prediction=item.body, sequence_id=sequence.id))

    def _send_error(self, error: ServeError, sequence_id: str) -> None:
        """Send an error as a response: the text without TorchServe's tag, which is the reason."""
        named = prediction_error(error)
        metadata = {name.decode("ascii"): value.decode("ascii") for name, value in named.status(error).metadata}
        info = ErrorInfo(reason=named.tag, metadata=metadata)
        details = [Any(type_url=_ERROR_INFO, value=info.SerializeToString())]
        status = Status(code=named.code, message=named.text, details=details)
        self._call.send(PredictionResponse(status=status, sequence_id=sequence_id or None))
