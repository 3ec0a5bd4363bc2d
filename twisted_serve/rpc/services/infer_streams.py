# SPDX-License-Identifier: Apache-2.0
"""
Answer Triton's bidirectional inference: each message is a request, with any number of responses.

Responses to one request are in the order in which its handler sends them; those to others may come between them, and
``id`` tells which request a response belongs to.  An error is a response, too, and the call goes on.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.openinference.pieces import MOST_AT_ONCE
from twisted_serve.rpc.contracts import Answer, ConversationCall
from twisted_serve.rpc.messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from twisted_serve.rpc.methods import KSERVE
from twisted_serve.rpc.services.infer_requests import Prepared
from twisted_serve.rpc.services.open_inference import Inference, status_of
from twisted_serve.wire.messages import Item

# The most requests of a call that are not answered, and their most bytes.  A client that sends more is held back by
# flow control; one larger request alone is allowed.
MOST_REQUESTS = 32
MOST_BYTES = 1 << 23

# In characters, of a request's id in an error.
_LONGEST_ID = 1024

#: The parameter that marks the last response to a request.
FINAL = "triton_final_response"


def infer_stream_endpoints(inference: Inference) -> dict[str, Answer]:
    """Return the answer of ``ModelStreamInfer`` by path; only KServe's name of the service has it."""

    def model_stream_infer(call: ConversationCall) -> InferConversation:
        return InferConversation(call, inference)

    return {f"/{KSERVE}/ModelStreamInfer": model_stream_infer}


@implementer(IPushProducer)
class InferConversation:
    """
    The server's side of one call.

    It is also the producer of the responses: a client that does not read them pauses its handlers.
    """

    def __init__(self, call: ConversationCall, inference: Inference) -> None:
        self.call = call
        self.inference = inference
        self.stalled = False
        # Requests are prepared and submitted one after the other, so that a large one keeps its place.
        self.preparing = DeferredLock()
        self._count = 0
        self._bytes = 0
        self._requests: dict[_Request, Deferred[None]] = {}
        self._paused = False
        self._half_closed = False
        self._over = False
        call.registerProducer(self, True)

    def received(self, message: ModelInferRequest) -> None:
        """Submit a request."""
        self._count += 1
        request = _Request(self, message, f"{self.call.job_id}-{self._count}", first=self._count == 1)
        size = message.ByteSize()
        self._bytes += size
        answered: Deferred[None] = Deferred.fromCoroutine(request.answer())
        self._requests[request] = answered

        def done(result: Failure | None) -> None:
            del self._requests[request]
            self._bytes -= size
            if isinstance(result, Failure) and not self._over:
                self._fail(result)
            self._go_on()

        answered.addBoth(done)
        self._go_on()

    def half_closed(self) -> None:
        """End the call after the last response."""
        self._half_closed = True
        self._go_on()

    def cancelled(self) -> None:
        """Cancel all requests that are not answered."""
        self._over = True
        for answered in list(self._requests.values()):
            answered.cancel()

    def pauseProducing(self) -> None:
        """Pause the handlers, and accept no further request: the client does not read."""
        self.stalled = True
        for request in list(self._requests):
            request.pause()
        self._go_on()

    def resumeProducing(self) -> None:
        """Continue: the client reads again."""
        self.stalled = False
        for request in list(self._requests):
            request.resume()
        self._go_on()

    def stopProducing(self) -> None:
        """Do nothing: `cancelled` is called as well."""

    @property
    def over(self) -> bool:
        """Whether nothing is sent any longer."""
        return self._over

    def _go_on(self) -> None:
        """Accept messages if there is room, or end the call if all is done."""
        if self._over:
            return
        if self._half_closed and not self._requests:
            self._over = True
            self.call.unregisterProducer()
            self.call.finish()
            return
        paused = self.stalled or len(self._requests) >= MOST_REQUESTS or self._bytes >= MOST_BYTES
        if paused != self._paused:
            self._paused = paused
            (self.call.pause_messages if paused else self.call.resume_messages)()

    def _fail(self, failure: Failure) -> None:
        """End the call, because of a bug."""
        self.cancelled()
        self.call.fail(failure)


class _Request:
    """
    One request of a call.

    :param job_id: The id for the worker.
    :param first: Whether it is the first of the call, which the timing of the call describes.
    """

    def __init__(self, conversation: InferConversation, message: ModelInferRequest, job_id: str, first: bool) -> None:
        self._conversation = conversation
        self._messages = [message]
        self._id = message.id[:_LONGEST_ID]
        self._job_id = job_id
        self._first = first
        self._answer: Deferred[Item] | None = None
        self._producer: IPushProducer | None = None
        # Responses are converted and sent one after the other, so that a large one keeps its place.
        self._sending = DeferredLock()
        self._converting = 0
        self._failure: Failure | None = None
        self._sent = 0

    async def answer(self) -> None:
        """Send all responses, or an error; nothing if the call is over."""
        try:
            await self._run()
        except Exception:
            failure = self._failure or Failure()
            if self._conversation.over:
                return
            text = status_of(self._conversation.call.error_of(failure)).message
            response = ModelInferResponse(id=self._id)
            self._conversation.call.send(ModelStreamInferResponse(error_message=text, infer_response=response))

    async def _run(self) -> None:
        call, inference = self._conversation.call, self._conversation.inference
        async with self._conversation.preparing:
            if self._conversation.over:
                # Cancelling the request before has passed the lock on.
                raise CancelledError()
            # The request as JSON is enough while it waits.
            message = self._messages.pop()
            request = await inference.prepare(call, message)
            del message
            timing = call.timing if self._first else None
            self._answer = inference.submit(call, self._job_id, request, partial(self._chunk, request), timing)
        item = await self._answer
        await self._send(request, item, final=True)
        if self._failure is not None:
            self._failure.raiseException()

    def pause(self) -> None:
        """Pause the handler."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """Resume the handler, unless its last response is still being converted."""
        if self._producer is not None and not (self._converting or self._conversation.stalled):
            self._producer.resumeProducing()

    def _chunk(self, request: Prepared, item: Item, producer: IPushProducer) -> None:
        """Send a response that is not the last."""
        self._producer = producer
        if self._conversation.stalled or len(item.body) > MOST_AT_ONCE:
            producer.pauseProducing()
        self._converting += 1
        Deferred.fromCoroutine(self._send(request, item, final=False)).addCallbacks(
            self._chunk_sent, self._chunk_failed
        )

    def _chunk_sent(self, _result: None) -> None:
        self._converting -= 1
        self.resume()

    def _chunk_failed(self, _failure: Failure) -> None:
        self._converting -= 1
        if self._answer is not None:
            self._answer.cancel()

    async def _send(self, request: Prepared, item: Item, final: bool) -> None:
        async with self._sending:
            if self._failure is not None or self._conversation.over:
                return
            if final and self._sent and not item.body:
                # The handler has said all before.
                if not request.empty_final:
                    return
                response = ModelInferResponse(model_name=request.model, model_version=request.served, id=request.id)
            else:
                try:
                    response = await self._conversation.inference.response(request, item)
                except Exception:
                    # Before the next response may be sent.
                    self._failure = Failure()
                    raise
            response.parameters[FINAL].bool_param = final
            self._sent += 1
            self._conversation.call.send(ModelStreamInferResponse(infer_response=response))
