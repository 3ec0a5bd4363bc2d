# SPDX-License-Identifier: Apache-2.0
"""
Build the factory of each listener: its methods, and the door in front of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from twisted_serve.auth.redaction import Redact
from twisted_serve.auth.scopes import Operation, required
from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.listening.admission import Admission
from twisted_serve.listening.roles import Role
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.planes.access import Access, ApplicationAccess, TokenAccess
from twisted_serve.planes.inference import SharedInference
from twisted_serve.planes.inputs import MOST_PARTS
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.metadata import Metadata
from twisted_serve.rpc.contracts import Answer, Method, kind_of
from twisted_serve.rpc.descriptors import class_of, method_of
from twisted_serve.rpc.door import door_of, models_known
from twisted_serve.rpc.endings import Endings
from twisted_serve.rpc.engine.factory import GrpcFactory
from twisted_serve.rpc.engine.limits import RpcLimits
from twisted_serve.rpc.methods import (
    HEALTH,
    INFERENCE,
    KSERVE,
    MANAGEMENT,
    OPEN_INFERENCE,
    REFLECTION,
    REFLECTION_ALPHA,
    paths_of,
    services_of,
)
from twisted_serve.rpc.services.health import Health, health_endpoints
from twisted_serve.rpc.services.infer_streams import infer_stream_endpoints
from twisted_serve.rpc.services.inference import inference_endpoints
from twisted_serve.rpc.services.jobs import HandlerHeaders
from twisted_serve.rpc.services.management import management_endpoints
from twisted_serve.rpc.services.open_inference import Inference, open_inference_endpoints
from twisted_serve.rpc.services.open_inference import status_of as open_inference_status
from twisted_serve.rpc.services.reflection import reflection_endpoints
from twisted_serve.rpc.services.repository import repository_endpoints
from twisted_serve.rpc.services.torchserve import management_status, prediction_status
from twisted_serve.rpc.statuses import Status, status_of
from twisted_serve.scheduling.sequence_headers import SequenceHeaders

if TYPE_CHECKING:
    from twisted_serve.metrics.tracing import Tracer

# The most bytes of a message of a method that needs no key, which has at most a name in it.
_OPEN_MESSAGE = 8192

# For a large message of a prediction: its inputs, and the other fields.
_MOST_FIELDS = MOST_PARTS + 10

# The status of each error, where it is not that of all other services.
_STATUSES: Mapping[str, Callable[[ServeError], Status]] = {
    INFERENCE: prediction_status,
    MANAGEMENT: management_status,
    OPEN_INFERENCE: management_status,
    KSERVE: open_inference_status,
}


@frozen
class GrpcApi:
    """
    The gRPC API that all listeners share.

    :ivar version: The server's version.
    :ivar limits: Those of a connection; its age is the listener's.
    :ivar ages: Age and grace of connections in seconds, by role; ``None`` for no limit.
    :ivar most_joined: The most bytes of parts that are joined to one response (``max_response_size``).
    :ivar exempt_ping: Whether ``Ping`` needs no key (``token_exempt_ping``).
    :ivar open_inference: Whether the Open Inference Protocol has TorchServe's name, besides KServe's.
    :ivar reflection: Whether clients may ask for the services.
    :ivar admission: Limits the number of connections of all listeners together.
    :ivar error_detail: Whether clients see the details of handler errors; ``None``: only on listeners that only this
        machine can reach.
    :ivar tracer: Traces predictions; ``None`` if tracing is off.
    """

    inference: SharedInference
    management: ManagementPlane
    metadata: Metadata
    metrics: ServerMetrics
    access: Access
    reactor: IReactorTime
    defer_to_thread: DeferToThread
    version: str
    limits: RpcLimits
    ages: Mapping[Role, tuple[float | None, float | None]]
    most_joined: int
    sequences: SequenceHeaders
    exempt_ping: bool
    open_inference: bool
    reflection: bool
    admission: Admission
    error_detail: bool | None
    tracer: Tracer | None
    health: Health = field(init=False)
    _endings: Endings = field(init=False)

    @health.default
    def _watched(self) -> Health:
        services = services_of(Role.INFERENCE | Role.MANAGEMENT, self.open_inference, self.reflection)
        known_to = models_known(self.access, self.exempt_ping, self.inference)
        return Health(self.inference, self.reactor, services, known_to)

    @_endings.default
    def _recorded(self) -> Endings:
        return Endings(self.metrics, self.access.redact, self.tracer)

    def factory(self, roles: Role, local: bool) -> GrpcFactory:
        """
        Return the factory of a listener with these roles.

        :param local: Whether only this machine can reach the listener.
        """
        age, grace = next(ages for role, ages in self.ages.items() if role & roles)
        detailed = local if self.error_detail is None else self.error_detail
        return GrpcFactory(
            {method.path.encode("ascii"): method for method in self.methods(roles)},
            door_of(self.access, roles, self.exempt_ping, self.reactor),
            self._endings.record,
            evolve(self.limits, age=age, grace=grace),
            self.reactor,
            self.defer_to_thread,
            _detail(self.access.redact) if detailed else _no_detail,
            self.admission,
            bool(roles & Role.INFERENCE),
        )

    def methods(self, roles: Role) -> Iterator[Method]:
        """Yield the methods of a listener; each has an answer, and no answer is without a method."""
        names = list(services_of(roles, self.open_inference, self.reflection))
        answers = self._answers(names)
        for name in names:
            for path, operation in paths_of(name).items():
                # Any client may send messages of an open method.
                is_open = operation is not None and required(operation) is None
                method = _method(
                    path, answers.pop(path), _STATUSES.get(name, status_of), _OPEN_MESSAGE if is_open else None
                )
                yield evolve(method, most_fields=_MOST_FIELDS) if operation is Operation.PREDICT else method
        if answers:
            raise ValueError(f"answers without a method: {sorted(answers)}")

    def _answers(self, names: list[str]) -> dict[str, Answer]:
        headers = HandlerHeaders(isinstance(self.access, TokenAccess), isinstance(self.access, ApplicationAccess))
        inference = Inference(self.inference, headers, self.defer_to_thread, self.version)
        answers: dict[str, Answer] = {}
        if INFERENCE in names:
            answers |= inference_endpoints(self.inference, headers, self.sequences, self.most_joined)
        if MANAGEMENT in names:
            answers |= management_endpoints(self.management, self.metadata)
        if OPEN_INFERENCE in names:
            answers |= open_inference_endpoints(OPEN_INFERENCE, evolve(inference, base64=True))
        if KSERVE in names:
            answers |= open_inference_endpoints(KSERVE, inference) | infer_stream_endpoints(inference)
            answers |= repository_endpoints(self.inference, self.management)
        if HEALTH in names:
            answers |= health_endpoints(self.health)
        if REFLECTION in names or REFLECTION_ALPHA in names:
            answers |= reflection_endpoints(names)
        return answers


def _method(path: str, answer: Answer, status: Callable[[ServeError], Status], most: int | None) -> Method:
    """Return a method, with kind and message of its descriptor."""
    described = method_of(path)
    return Method(path, kind_of(described), class_of(described.input_type), answer, status, most)


def _detail(redact: Redact) -> Callable[[str], str | None]:
    """Return the function that makes the detail of a handler's error, with keys redacted."""
    return lambda detail: redact(detail.encode("utf-8", "replace")).decode("utf-8", "replace")


def _no_detail(_detail: str) -> str | None:
    return None
