# SPDX-License-Identifier: Apache-2.0
"""
Load, unload and list models by name, for clients of KServe and of Triton.

Loading is registering an archive of the model store, unloading is unregistering.  The messages of KServe and Triton
differ: ``model_name`` is field 1 of KServe's, where Triton's have the name of a repository, and field 2 of Triton's.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from twisted_serve.errors import BadRequest, ModelNotFound
from twisted_serve.models.registry import valid_model_name
from twisted_serve.planes.changes import shielded
from twisted_serve.planes.inference import InferencePlane, SharedInference
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.registrar import Registration
from twisted_serve.rpc.contracts import Answer, Call
from twisted_serve.rpc.messages import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
)
from twisted_serve.rpc.methods import KSERVE

# What a model's entry in the store is named: a directory, or a file of TorchServe.
_SUFFIXES = ("", ".mar", ".model", ".tar.gz", ".tgz")

_READY, _UNAVAILABLE = "READY", "UNAVAILABLE"


def repository_endpoints(inference: SharedInference, management: ManagementPlane) -> dict[str, Answer]:
    """Return the answers by path; changes are completed even if the client leaves."""

    def index(call: Call, message: RepositoryIndexRequest) -> RepositoryIndexResponse:
        response = RepositoryIndexResponse()
        seen = inference.seen_by(call.sender)
        for name in seen.names():
            for version in seen.versions(name):
                ready = seen.model_ready(name, version)
                if ready or not message.ready:
                    reason = "" if ready else "fewer workers are ready than its minimum, or none"
                    state = _READY if ready else _UNAVAILABLE
                    response.models.add(name=name, version=version, state=state, reason=reason)
        return response

    def load(_call: Call, message: RepositoryModelLoadRequest) -> Deferred[RepositoryModelLoadResponse]:
        management.check_enabled()
        name = _name_of(message)
        if message.parameters:
            raise BadRequest(
                f"parameters has {min(message.parameters)!r:.60}, but a model is loaded with its own configuration."
            )
        return shielded(_load(management, name)).addCallback(
            lambda _: RepositoryModelLoadResponse(model_name=name, isLoaded=True)
        )

    def unload(call: Call, message: RepositoryModelUnloadRequest) -> Deferred[RepositoryModelUnloadResponse]:
        management.check_enabled()
        name = _name_of(message)
        return shielded(_unload(inference.seen_by(call.sender), management, name)).addCallback(
            lambda _: RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)
        )

    return {
        f"/{KSERVE}/RepositoryIndex": index,
        f"/{KSERVE}/RepositoryModelLoad": load,
        f"/{KSERVE}/RepositoryModelUnload": unload,
    }


def _name_of(message: RepositoryModelLoadRequest | RepositoryModelUnloadRequest) -> str:
    """
    Return the name of the model.

    :raise BadRequest: for none, and for one that could not be the name of a model, a path or URL for example.
    """
    name = message.model_name or message.repository_name
    if not name:
        raise BadRequest("Parameter model_name is required.")
    return valid_model_name(name)


async def _load(plane: ManagementPlane, name: str) -> None:
    """
    Register a model with a worker at least; a model that is registered already stays as it is.

    :raise ModelNotFound: if there is none in the store.
    :raise ServeError: as :meth:`ManagementPlane.register`.
    """
    try:
        plane.find(name, None)
    except ModelNotFound:
        await _register(plane, name)
    else:
        return
    if plane.find(name, None).settings.max_workers == 0:
        try:
            await plane.scale(name, None, 1, None, synchronous=True)
        except BaseException:
            await plane.unregister(name, None)
            raise


async def _register(plane: ManagementPlane, name: str) -> None:
    for suffix in _SUFFIXES:
        try:
            await plane.register(Registration(url=name + suffix, model_name=name))
        except ModelNotFound:
            continue
        return
    raise ModelNotFound(f"Model not found in the model store: {name}")


async def _unload(inference: InferencePlane, management: ManagementPlane, name: str) -> None:
    """
    Unregister all versions of a model, the default one last.

    :raise ModelNotFound: if it is not registered.
    """
    default = inference.find(name, None).version
    for version in inference.versions(name):
        if version != default:
            await management.unregister(name, version)
    await management.unregister(name, default)
