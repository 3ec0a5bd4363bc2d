# SPDX-License-Identifier: Apache-2.0
"""
List the methods of gRPC, the operation of each, and hence the key that each needs.

An operation needs the same key by HTTP (`auth.scopes`).  Messages and kinds of methods are in the descriptors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from twisted_serve.auth.needs import Need, NeedPolicy
from twisted_serve.auth.scopes import Operation, Scope, required
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.listening.roles import Role

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"
#: The Open Inference Protocol under TorchServe's name, and under KServe's, which Triton's clients use, too.
OPEN_INFERENCE = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"
KSERVE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA = "grpc.reflection.v1alpha.ServerReflection"

_EVERY = Role.INFERENCE | Role.MANAGEMENT

_OPEN_INFERENCE: Mapping[str, Operation] = {
    "ServerLive": Operation.CHECK_HEALTH,
    "ServerReady": Operation.CHECK_HEALTH,
    "ModelReady": Operation.INSPECT_MODELS,
    "ServerMetadata": Operation.INSPECT_MODELS,
    "ModelMetadata": Operation.INSPECT_MODELS,
    "ModelInfer": Operation.PREDICT,
}


@frozen
class Service:
    """
    A service.

    :ivar roles: The listeners that have it: those with one of these roles.
    :ivar methods: The operation of each method; ``None`` for a method that needs the listener's own key.
    """

    roles: Role
    methods: Mapping[str, Operation | None]


#: All services by full name.
SERVICES: Mapping[str, Service] = {
    INFERENCE: Service(
        Role.INFERENCE,
        {
            "Ping": Operation.CHECK_HEALTH,
            "Predictions": Operation.PREDICT,
            "StreamPredictions": Operation.PREDICT,
            "StreamPredictions2": Operation.PREDICT,
        },
    ),
    MANAGEMENT: Service(
        Role.MANAGEMENT,
        {
            "DescribeModel": Operation.DESCRIBE_MODEL,
            "ListModels": Operation.LIST_MODELS,
            "RegisterModel": Operation.REGISTER_MODEL,
            "ScaleWorker": Operation.SCALE_MODEL,
            "SetDefault": Operation.SET_DEFAULT_VERSION,
            "UnregisterModel": Operation.UNREGISTER_MODEL,
        },
    ),
    OPEN_INFERENCE: Service(Role.INFERENCE, _OPEN_INFERENCE),
    KSERVE: Service(
        Role.INFERENCE,
        {
            **_OPEN_INFERENCE,
            "ModelStreamInfer": Operation.PREDICT,
            "RepositoryIndex": Operation.LIST_MODELS,
            "RepositoryModelLoad": Operation.REGISTER_MODEL,
            "RepositoryModelUnload": Operation.UNREGISTER_MODEL,
        },
    ),
    HEALTH: Service(_EVERY, {"Check": Operation.PROBE, "List": Operation.PROBE, "Watch": Operation.PROBE}),
    REFLECTION: Service(_EVERY, {"ServerReflectionInfo": None}),
    REFLECTION_ALPHA: Service(_EVERY, {"ServerReflectionInfo": None}),
}


def services_of(roles: Role, open_inference: bool, reflection: bool) -> Iterator[str]:
    """
    Yield the full names of the services of a listener.

    :param open_inference: Whether the Open Inference Protocol has TorchServe's name (``ts_open_inference_protocol``),
        besides KServe's.
    :param reflection: Whether clients may ask for the services (``grpc_reflection``).
    """
    without = set() if open_inference else {OPEN_INFERENCE}
    if not reflection:
        without |= {REFLECTION, REFLECTION_ALPHA}
    for name, service in SERVICES.items():
        if service.roles & roles and name not in without:
            yield name


def paths_of(service: str) -> dict[str, Operation | None]:
    """Return the paths of a service's methods, with their operations."""
    return {f"/{service}/{name}": operation for name, operation in SERVICES[service].methods.items()}


def own_scope(roles: Role) -> Scope:
    """Return the key that a call without an operation needs on a listener, such as one of an unknown method."""
    return TokenKind.INFERENCE if roles & Role.INFERENCE else TokenKind.MANAGEMENT


def need_policy(roles: Role, exempt_ping: bool) -> NeedPolicy:
    """
    Return the function that decides which key a call needs on a listener, and for which operation.

    Services that are not served have keys all the same: a client without a key learns nothing of them.

    :param exempt_ping: Whether ``Ping`` needs no key (``token_exempt_ping``).
    """
    own = own_scope(roles)
    needs = {}
    for name, service in SERVICES.items():
        if service.roles & roles:
            for path, operation in paths_of(name).items():
                needs[path] = Need(operation, own if operation is None else required(operation))
    if exempt_ping:
        needs[f"/{INFERENCE}/Ping"] = Need(Operation.CHECK_HEALTH, None)
    unknown = Need(None, own)

    def policy(_method: bytes, target: Target) -> Need:
        return unknown if target.flaw is not None else needs.get("/" + "/".join(target.segments), unknown)

    return policy
