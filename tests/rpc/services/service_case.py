# SPDX-License-Identifier: Apache-2.0
"""What the tests of TorchServe's services share: their answers over the planes of a server in memory, and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import InternalError, ServeError
from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.memory_usage import Memory
from twisted_serve.planes.metadata import Metadata
from twisted_serve.planes.senders import Sender
from twisted_serve.rpc.contracts import Answer
from twisted_serve.rpc.methods import INFERENCE, MANAGEMENT
from twisted_serve.rpc.services.inference import inference_endpoints
from twisted_serve.rpc.services.jobs import HandlerHeaders
from twisted_serve.rpc.services.management import management_endpoints
from twisted_serve.rpc.services.torchserve import management_status, prediction_status
from twisted_serve.rpc.statuses import OK, Status
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.testing.fakes import FakeWorker
from twisted_serve.testing.server import MemoryServer
from twisted_serve.wire.messages import Item, Job


class RecordingCall:
    """
    A call that records what it is told.

    :ivar sent: The messages of a stream.
    :ivar producer: The producer that is registered.
    :ivar paused: Whether messages of the client are held back.
    :ivar end: The status of the end, if the service has ended the call.
    """

    def __init__(
        self,
        metadata: Sequence[tuple[bytes, bytes]] = (),
        deadline: float | None = None,
        principal: str | None = None,
        job_id: str = "job",
    ) -> None:
        self.metadata = metadata
        self.peer: IAddress = IPv4Address("TCP", "127.0.0.1", 4242)
        self.began = 0.0
        self.deadline = deadline
        self.request_id = "id"
        self.job_id = job_id
        self.principal = principal
        self.sender: Sender | None = None
        self.timing = Timing(0.0)
        self.sent: list[Any] = []
        self.producer: IPushProducer | None = None
        self.paused = False
        self.end: Status | None = None

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def error_of(self, failure: Failure) -> ServeError:
        return failure.value if isinstance(failure.value, ServeError) else InternalError("Internal server error.")

    def finish(self) -> None:
        assert self.end is None
        self.end = OK

    def fail(self, failure: Failure) -> None:
        assert self.end is None
        self.end = prediction_status(self.error_of(failure))

    def pause_messages(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_messages(self) -> None:
        assert self.paused
        self.paused = False

    @property
    def reading(self) -> IPushProducer:
        """The registered producer, for a client that stops reading or reads again."""
        assert self.producer is not None
        return self.producer


class ServiceTestCase(SynchronousTestCase):
    """A server in memory, and the answers of both services over its planes."""

    options: Mapping[str, Any] = {}
    models: Mapping[str, Mapping[str, str]] = {"m": {}}
    tokens = False

    def setUp(self) -> None:
        self.server = MemoryServer({"disable_token_authorization": True, **self.options}, models=self.models)
        self.addCleanup(self.server.close)
        calls: Any = self.server.server._find_calls()
        self.inference, self.management = calls.predictions._plane, calls.models._management
        self.metadata = self.describer()
        self.answers: dict[str, Answer] = {
            **inference_endpoints(
                self.inference, HandlerHeaders(self.tokens), SequenceHeaders(), self.server.options.max_response_size
            ),
            **management_endpoints(self.management, self.metadata),
        }

    def describer(self) -> Metadata:
        clock = self.server.clock
        return Metadata(self.inference._catalogue, clock.seconds, Memory(maybeDeferred, clock.seconds))

    @property
    def worker(self) -> FakeWorker:
        return self.server.provider.workers[-1]

    @property
    def jobs(self) -> list[Job]:
        """All jobs that workers got."""
        return [job for batch in self.server.provider.batches for job in batch]

    def respond(self, respond: Any) -> None:
        """Let workers answer each job with the result of a function: bytes, or an error for the batch."""

        def answer(jobs: list[Job]) -> Any:
            results = [respond(job) for job in jobs]
            failed = [each for each in results if isinstance(each, Exception)]
            return failed[0] if failed else [self.item(job, each) for job, each in zip(jobs, results, strict=True)]

        self.server.provider.respond = answer

    def item(self, job: Job, body: bytes) -> Item:
        return Item(job.request_id, 200, "", {}, body)

    def ask(self, method: str, message: Any, call: RecordingCall | None = None) -> Deferred[Any]:
        """Call a unary or streaming method."""
        service = INFERENCE if f"/{INFERENCE}/{method}" in self.answers else MANAGEMENT
        answer: Any = self.answers[f"/{service}/{method}"]
        return maybeDeferred(answer, call or RecordingCall(), message)

    def answer(self, method: str, message: Any, call: RecordingCall | None = None) -> Any:
        """Call a method that is answered immediately, and return the answer."""
        return self.successResultOf(self.ask(method, message, call))

    def status(self, method: str, message: Any, call: RecordingCall | None = None) -> Status:
        """Call a method that fails, and return the status of the error."""
        return self.status_of(method, self.ask(method, message, call))

    def status_of(self, method: str, answer: Deferred[Any]) -> Status:
        error = self.failureResultOf(answer).value
        assert isinstance(error, ServeError), error
        management = f"/{MANAGEMENT}/{method}" in self.answers
        return (management_status if management else prediction_status)(error)

    def assertStatus(self, status: Status, code: int, *lines: str) -> None:
        self.assertEqual((int(status.code), status.message), (code, "\n".join(lines)))
