# SPDX-License-Identifier: Apache-2.0
"""
Answer the Open Inference Protocol, under TorchServe's name of the service and under KServe's.

``docs/torchserve/grpc_workflows_kserve.md`` §1.9.  Readiness is that of the HTTP routes; TorchServe's server is always
ready.
"""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger

from twisted_serve.errors import BadRequest, InternalError, ServeError, WorkerFailed
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.metrics.timing import Timing
from twisted_serve.openinference.pieces import MOST_AT_ONCE
from twisted_serve.openinference.server import EXTENSIONS, SERVER
from twisted_serve.planes.inference import SharedInference
from twisted_serve.planes.job_headers import PREDICT
from twisted_serve.rpc import statuses
from twisted_serve.rpc.contracts import Answer, Call
from twisted_serve.rpc.messages import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from twisted_serve.rpc.services.infer_answers import response_of
from twisted_serve.rpc.services.infer_requests import Prepared, prepare
from twisted_serve.rpc.services.jobs import HandlerHeaders
from twisted_serve.rpc.services.torchserve import ParameterRequired
from twisted_serve.rpc.statuses import Code, Status, code_of_http
from twisted_serve.scheduling.pending import OnChunk
from twisted_serve.wire.messages import Item, Job, Part

_log = Logger("twisted_serve.rpc")

# In characters: a client's value may be in a text, which must fit into a header.
_LONGEST_TEXT = 2000


def status_of(error: ServeError) -> Status:
    """
    Return the status of an error for clients of KServe and Triton.

    The code of a handler's exception is `Code.INTERNAL`, because clients repeat a request after `Code.UNAVAILABLE`,
    which TorchServe sends.  An error that a handler raises with a status on purpose has the code of that status.
    """
    status = evolve(statuses.status_of(error), message=error.message[:_LONGEST_TEXT])
    if isinstance(error, BadRequest):
        return evolve(status, code=Code.INVALID_ARGUMENT)
    if not isinstance(error, WorkerFailed):
        return status
    code = code_of_http(error.status)
    return evolve(status, code=Code.INTERNAL if error.detail and code is Code.UNAVAILABLE else code)


@frozen
class Inference:
    """
    The inference of a service.

    :ivar version: The server's version.
    :ivar base64: As `prepare`.
    """

    plane: SharedInference
    headers: HandlerHeaders
    defer_to_thread: DeferToThread
    version: str
    base64: bool = False

    async def prepare(self, call: Call, message: ModelInferRequest) -> Prepared:
        """
        Convert a request for the handler, a large one in a thread.

        :raise ServeError: if there is no such model.
        :raise BadRequest: as `prepare`.
        """
        _check_name("model_name", message.model_name)
        # Checked before the tensors are read.
        served = self.plane.seen_by(call.sender).find(message.model_name, message.model_version or None).version
        if message.ByteSize() > MOST_AT_ONCE:
            return await self.defer_to_thread(prepare, message, served, self.base64)
        return prepare(message, served, self.base64)

    def submit(
        self, call: Call, job_id: str, request: Prepared, on_chunk: OnChunk, timing: Timing | None
    ) -> Deferred[Item]:
        """
        Submit a request to a worker.

        :raise ServeError: as :meth:`InferencePlane.predict`.
        """
        headers = {**self.headers.of(call), **PREDICT}
        job = Job(job_id, headers, [Part("body", "application/json", request.body)])
        plane = self.plane.seen_by(call.sender)
        return plane.predict(request.model, request.version, job, on_chunk, call.deadline, timing)

    async def response(self, request: Prepared, item: Item) -> ModelInferResponse:
        """
        Convert a handler's response, a large one in a thread.

        :raise BadRequest: for a requested output that is not there.
        :raise InternalError: for a response that does not follow the protocol, which is logged.
        """
        try:
            if len(item.body) > MOST_AT_ONCE:
                return await self.defer_to_thread(response_of, item.body, request)
            return response_of(item.body, request)
        except InternalError as e:
            _log.error("An answer of model {name} cannot be sent: {error}", name=request.model, error=e)
            raise

    async def infer(self, call: Call, message: ModelInferRequest) -> ModelInferResponse:
        """
        Answer one request with one response.

        :raise BadRequest: if the handler answers with a stream.
        :raise ServeError: as `prepare`, `submit` and `response`.
        """
        request = await self.prepare(call, message)
        # The request as JSON is enough while it waits.
        del message
        whole = _Whole()
        whole.answer = self.submit(call, call.job_id, request, whole.refuse, call.timing)
        try:
            item = await whole.answer
        except CancelledError:
            if not whole.streams:
                raise
        if whole.streams:
            raise BadRequest(f"Model {request.model} answers with a stream: call ModelStreamInfer.")
        return await self.response(request, item)


class _Whole:
    """
    An answer that may have one part only: a message cannot be sent before it is complete.

    :ivar streams: Whether the handler has sent a part; then the job is cancelled.
    """

    def __init__(self) -> None:
        self.answer: Deferred[Item] | None = None
        self.streams = False

    def refuse(self, _item: Item, _producer: IPushProducer) -> None:
        """Cancel the job: a part has come."""
        self.streams = True
        if self.answer is not None:
            self.answer.cancel()


def open_inference_endpoints(service: str, inference: Inference) -> dict[str, Answer]:
    """
    Return the answers of the methods that both names of the service have, by path.

    :param service: Its full name: `methods.OPEN_INFERENCE` or `methods.KSERVE`.
    """
    plane = inference.plane

    def server_live(_call: Call, _message: ServerLiveRequest) -> ServerLiveResponse:
        return ServerLiveResponse(live=True)

    def server_ready(_call: Call, _message: ServerReadyRequest) -> ServerReadyResponse:
        return ServerReadyResponse(ready=plane.ready())

    def model_ready(call: Call, message: ModelReadyRequest) -> ModelReadyResponse:
        _check_name("name", message.name)
        return ModelReadyResponse(ready=plane.seen_by(call.sender).model_ready(message.name, message.version or None))

    def server_metadata(_call: Call, _message: ServerMetadataRequest) -> ServerMetadataResponse:
        return ServerMetadataResponse(name=SERVER, version=inference.version, extensions=EXTENSIONS)

    def model_metadata(call: Call, message: ModelMetadataRequest) -> ModelMetadataResponse:
        _check_name("name", message.name)
        seen = plane.seen_by(call.sender)
        seen.find(message.name, message.version or None)
        return ModelMetadataResponse(name=message.name, versions=seen.versions(message.name))

    methods: dict[str, Answer] = {
        "ServerLive": server_live,
        "ServerReady": server_ready,
        "ModelReady": model_ready,
        "ServerMetadata": server_metadata,
        "ModelMetadata": model_metadata,
        "ModelInfer": inference.infer,
    }
    return {f"/{service}/{name}": answer for name, answer in methods.items()}


def _check_name(field: str, name: str) -> None:
    """
    Check that a message names a model.

    :raise ParameterRequired: if it does not.
    """
    if not name:
        raise ParameterRequired(f"Parameter {field} is required.")
