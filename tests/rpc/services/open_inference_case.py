# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Open Inference Protocol share: its answers over a server in memory, and messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.rpc.services.service_case import RecordingCall
from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.rpc.contracts import Answer
from twisted_serve.rpc.messages import InferParameter, InferTensorContents, ModelInferRequest
from twisted_serve.rpc.methods import KSERVE, OPEN_INFERENCE
from twisted_serve.rpc.services.infer_streams import infer_stream_endpoints
from twisted_serve.rpc.services.jobs import HandlerHeaders
from twisted_serve.rpc.services.open_inference import Inference, open_inference_endpoints, status_of
from twisted_serve.rpc.services.repository import repository_endpoints
from twisted_serve.rpc.statuses import Code, Status
from twisted_serve.testing.fakes import FakeWorker
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item, Job


def parameter(value: bool | int | float | str) -> InferParameter:
    """Return a parameter."""
    kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
    message = InferParameter()
    setattr(message, kind, value)
    return message


def tensor(
    name: str, datatype: str, shape: list[int], given: Mapping[str, Any] | None = None, /, **contents: Any
) -> ModelInferRequest.InferInputTensor:
    """Return an input."""
    return ModelInferRequest.InferInputTensor(
        name=name,
        datatype=datatype,
        shape=shape,
        parameters={key: parameter(value) for key, value in (given or {}).items()},
        contents=InferTensorContents(**contents) if contents else None,
    )


def request(*inputs: Any, model: str = "m", **members: Any) -> ModelInferRequest:
    """Return a request."""
    return ModelInferRequest(model_name=model, inputs=inputs, **members)


def same(jobs: list[Job]) -> list[Item]:
    """Answer each job with its tensors."""
    items = []
    for job in jobs:
        asked = json.loads(job.parts[0].value)
        items.append(item(job.request_id, {"outputs": asked["inputs"], "id": asked["id"]}))
    return items


def item(request_id: str, body: Any, status: int = 200) -> Item:
    """Return an answer."""
    return Item(request_id, status, "", {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def _directly(work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
    return maybeDeferred(work, *args)


class OpenInferenceTestCase(SynchronousTestCase):
    """Both names of the service over a server in memory whose handler returns its tensors."""

    options: Mapping[str, Any] = {}
    threads: DeferToThread | None = None

    def setUp(self) -> None:
        self.server = MemoryServer(
            {"disable_token_authorization": True, **self.options}, respond=same, models={"m": {}}
        )
        self.addCleanup(self.server.close)
        calls: Any = self.server.server._find_calls()
        self.inference, self.management = calls.predictions._plane, calls.models._management
        headers, threads = HandlerHeaders(tokens=False), self.threads or _directly
        own = Inference(self.inference, headers, threads, "0.12.0")
        torchserve = Inference(self.inference, headers, threads, "0.12.0", base64=True)
        self.answers: dict[str, Answer] = {
            **open_inference_endpoints(KSERVE, own),
            **infer_stream_endpoints(own),
            **repository_endpoints(self.inference, self.management),
            **open_inference_endpoints(OPEN_INFERENCE, torchserve),
        }

    @property
    def worker(self) -> FakeWorker:
        return self.server.provider.workers[-1]

    @property
    def bodies(self) -> list[Any]:
        """The bodies of all jobs, parsed."""
        return [json.loads(job.parts[0].value) for batch in self.server.provider.batches for job in batch]

    def respond(self, *bodies: Any) -> None:
        """Let the worker answer each batch with a body."""
        self.server.provider.respond = lambda jobs: [
            item(job.request_id, body) for job, body in zip(jobs, bodies, strict=True)
        ]

    def ask(self, method: str, message: Any, call: RecordingCall | None = None, service: str = KSERVE) -> Deferred[Any]:
        answer: Any = self.answers[f"/{service}/{method}"]
        return maybeDeferred(answer, call or RecordingCall(), message)

    def answer(self, method: str, message: Any, call: RecordingCall | None = None, service: str = KSERVE) -> Any:
        """Return the answer, as the client gets it: serialized in between."""
        received = type(message).FromString(message.SerializeToString())
        answer = self.successResultOf(self.ask(method, received, call, service))
        return type(answer).FromString(answer.SerializeToString())

    def status(self, method: str, message: Any, call: RecordingCall | None = None) -> Status:
        """Return the status of a failed call."""
        error = self.failureResultOf(self.ask(method, message, call)).value
        assert isinstance(error, ServeError), error
        return status_of(error)

    def assert_refused(self, message: ModelInferRequest, words: str, code: Code = Code.INVALID_ARGUMENT) -> None:
        """Check that a request is refused, with words in the text, and that no worker gets it."""
        status = self.status("ModelInfer", message)
        self.assertEqual(status.code, code, status.message)
        self.assertIn(words, status.message)
        self.assertEqual(self.bodies, [])
