# SPDX-License-Identifier: Apache-2.0
"""
Answer TorchServe's inference API (``docs/torchserve/grpc_workflows_kserve.md`` §1.8).

A response has the bytes of the worker; a status, a phrase and headers that a handler sets have no place in it.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

from twisted_serve.errors import WorkerFailed
from twisted_serve.planes.inference import SharedInference
from twisted_serve.planes.json_layout import pretty
from twisted_serve.rpc.contracts import Answer, Call, ConversationCall
from twisted_serve.rpc.messages import Empty, PredictionResponse, PredictionsRequest, TorchServeHealthResponse
from twisted_serve.rpc.methods import INFERENCE
from twisted_serve.rpc.services.jobs import HandlerHeaders, model_of, parts_of
from twisted_serve.rpc.services.sequences import SequenceConversation
from twisted_serve.scheduling.pending import OnChunk
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.wire.messages import Item, Job


def inference_endpoints(
    plane: SharedInference, headers: HandlerHeaders, sequences: SequenceHeaders, most_joined: int
) -> dict[str, Answer]:
    """
    Return the answers of the inference API by path.

    :param sequences: The names of the headers of stateful models.
    :param most_joined: The most bytes of parts that are joined to one response (``max_response_size``).
    """
    predictor = _Predictor(plane, headers, most_joined)

    def ping(_call: Call, _message: Empty) -> TorchServeHealthResponse:
        return TorchServeHealthResponse(health=pretty({"status": "Healthy" if plane.healthy() else "Unhealthy"}))

    def converse(call: ConversationCall) -> SequenceConversation:
        return SequenceConversation(call, plane, headers.of(call), sequences)

    return {
        f"/{INFERENCE}/Ping": ping,
        f"/{INFERENCE}/Predictions": predictor.whole,
        f"/{INFERENCE}/StreamPredictions": predictor.stream,
        f"/{INFERENCE}/StreamPredictions2": converse,
    }


class _Predictor:
    """Submits the message of a call, and answers with the response of the worker, whole or in parts."""

    def __init__(self, plane: SharedInference, headers: HandlerHeaders, most_joined: int) -> None:
        self._plane = plane
        self._headers = headers
        self._most_joined = most_joined

    def whole(self, call: Call, message: PredictionsRequest) -> Deferred[PredictionResponse]:
        """
        Answer with the whole response; the parts of a streaming handler are joined.

        :raise ServeError: as :meth:`InferencePlane.predict`.
        """
        joined = _Joined(self._most_joined)
        joined.answer = self._submit(call, message, joined.chunk)
        return joined.answer.addCallbacks(joined.response, joined.failed)

    def stream(self, call: Call, message: PredictionsRequest) -> Deferred[None]:
        """
        Send a message for each part, and the last one for the handler's result.

        The worker is paused while the client does not read.

        :raise ServeError: as :meth:`InferencePlane.predict`.
        """
        registered = False

        def chunk(item: Item, producer: IPushProducer) -> None:
            nonlocal registered
            if not registered:
                registered = True
                call.registerProducer(producer, True)
            call.send(PredictionResponse(prediction=item.body))

        def over(result: Item | Failure) -> Item | Failure:
            # No part follows that back-pressure could delay.
            if registered:
                call.unregisterProducer()
            return result

        def last(item: Item) -> None:
            call.send(PredictionResponse(prediction=item.body))

        return self._submit(call, message, chunk).addBoth(over).addCallback(last)

    def _submit(self, call: Call, message: PredictionsRequest, on_chunk: OnChunk) -> Deferred[Item]:
        name, version = model_of(message)
        job = Job(call.job_id, self._headers.of(call), parts_of(message))
        return self._plane.seen_by(call.sender).predict(name, version, job, on_chunk, call.deadline, call.timing)


class _Joined:
    """
    The parts of a response, joined to one.

    :ivar answer: The response of the worker; cancelled if its parts are too large together.
    """

    def __init__(self, most: int) -> None:
        self.answer: Deferred[Item] | None = None
        self._most = most
        self._parts: list[bytes] = []
        self._left = most

    def chunk(self, item: Item, _producer: IPushProducer) -> None:
        """Keep a part."""
        self._left -= len(item.body)
        if self._left >= 0:
            self._parts.append(item.body)
            return
        self._parts.clear()
        if self.answer is not None:
            self.answer.cancel()

    def response(self, item: Item) -> PredictionResponse:
        """
        Return the message for the last part.

        :raise WorkerFailed: if there are more bytes than may be joined.
        """
        if self._left < 0 or (self._parts and len(item.body) > self._left):
            raise self._too_large()
        return PredictionResponse(prediction=b"".join((*self._parts, item.body)))

    def failed(self, failure: Failure) -> Failure:
        """Return the failure of the call: that of the worker, unless the parts are too large."""
        return Failure(self._too_large()) if self._left < 0 else failure

    def _too_large(self) -> WorkerFailed:
        return WorkerFailed(
            413, f"The parts of the response have more than {self._most} bytes (max_response_size); stream them."
        )
