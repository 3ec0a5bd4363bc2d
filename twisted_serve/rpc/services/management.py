# SPDX-License-Identifier: Apache-2.0
"""
Answer TorchServe's management API (``docs/torchserve/grpc_workflows_kserve.md`` §1.8).

Messages have no presence: an empty text, a zero and a negative number count as absent, and ``synchronous`` is off.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from twisted_serve.errors import BadRequest
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.planes.changes import shielded
from twisted_serve.planes.json_layout import pretty
from twisted_serve.planes.management import ManagementPlane, Outcome
from twisted_serve.planes.metadata import CustomDescription, Metadata
from twisted_serve.planes.registrar import Registration, refuse_signed
from twisted_serve.rpc.contracts import Answer, Call
from twisted_serve.rpc.messages import (
    DescribeModelRequest,
    ListModelsRequest,
    ManagementResponse,
    RegisterModelRequest,
    ScaleWorkerRequest,
    SetDefaultRequest,
    UnregisterModelRequest,
)
from twisted_serve.rpc.methods import MANAGEMENT


def management_endpoints(plane: ManagementPlane, metadata: Metadata) -> dict[str, Answer]:
    """Return the answers of the management API by path; changes are completed even if the client leaves."""

    def describe(call: Call, message: DescribeModelRequest) -> Deferred[ManagementResponse]:
        version = message.model_version or None
        if message.customized and version != "all":
            asked = Deferred.fromCoroutine(metadata.ask(message.model_name, version, call.job_id))
            return asked.addCallback(_custom)
        return Deferred.fromCoroutine(plane.describe(message.model_name, version)).addCallback(_json)

    def list_models(_call: Call, message: ListModelsRequest) -> ManagementResponse:
        return _json(plane.list_models(message.limit, message.next_page_token))

    def register(_call: Call, message: RegisterModelRequest) -> Deferred[ManagementResponse]:
        # Checked first: without the model API the same error responds to any message.
        plane.check_enabled()
        return _changed(plane.register(_registration_of(message)))

    def scale(_call: Call, message: ScaleWorkerRequest) -> Deferred[ManagementResponse]:
        least = _given(message.min_worker) or 1
        most = _given(message.max_worker) or least
        version = message.model_version or None
        return _changed(plane.scale(message.model_name, version, least, most, message.synchronous))

    def set_default(_call: Call, message: SetDefaultRequest) -> Deferred[ManagementResponse]:
        return _changed(plane.set_default(message.model_name, message.model_version))

    def unregister(_call: Call, message: UnregisterModelRequest) -> Deferred[ManagementResponse]:
        plane.check_enabled()
        if not message.model_name:
            # Literally: clients compare the text.
            raise BadRequest("Parameter url is required.")
        return _changed(plane.unregister(message.model_name, message.model_version or None))

    return {
        f"/{MANAGEMENT}/DescribeModel": describe,
        f"/{MANAGEMENT}/ListModels": list_models,
        f"/{MANAGEMENT}/RegisterModel": register,
        f"/{MANAGEMENT}/ScaleWorker": scale,
        f"/{MANAGEMENT}/SetDefault": set_default,
        f"/{MANAGEMENT}/UnregisterModel": unregister,
    }


def _changed(change: Coroutine[Deferred[Any], Any, Outcome]) -> Deferred[ManagementResponse]:
    return shielded(change).addCallback(lambda outcome: ManagementResponse(msg=outcome.text))


def _json(value: Any) -> ManagementResponse:
    return ManagementResponse(msg=pretty(value))


def _custom(described: CustomDescription) -> ManagementResponse:
    """Return a description; the status and headers of the handler have no place in it."""
    return _json([described.members])


def _given(number: int) -> int | None:
    return number if number > 0 else None


def _registration_of(message: RegisterModelRequest) -> Registration:
    """
    Return the registration that a message asks for.

    :raise BadRequest: for a parameter that is not supported.
    """
    refuse_signed(message.s3_sse_kms)
    return Registration(
        url=message.url or None,
        model_name=message.model_name or None,
        handler=message.handler or None,
        runtime=message.runtime or None,
        settings=RequestedSettings(
            batch_size=_given(message.batch_size),
            max_batch_delay=_given(message.max_batch_delay),
            initial_workers=_given(message.initial_workers),
            response_timeout=_given(message.response_timeout),
            startup_timeout=_given(message.startup_timeout),
        ),
        synchronous=message.synchronous,
    )
