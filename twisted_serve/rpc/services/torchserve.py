# SPDX-License-Identifier: Apache-2.0
"""
Name errors as TorchServe's gRPC services do: text, newline, Java class.

The codes that clients of TorchServe compare are TorchServe's; all others say what happened, and whether to retry
(``docs/torchserve/grpc_workflows_kserve.md`` §1.7).
"""

from __future__ import annotations

from attrs import evolve, frozen

from twisted_serve.errors import (
    BadRequest,
    MethodNotAllowed,
    ModelNotFound,
    ModelVersionNotFound,
    ServeError,
    ServiceUnavailable,
    WorkerFailed,
)
from twisted_serve.rpc.statuses import Code, Status, code_of_http, status_of

# The packages of TorchServe's exceptions.
_PACKAGES = {
    "org.pytorch.serve.archive": ("DownloadArchiveException",),
    "org.pytorch.serve.archive.model": (
        "InvalidKeyException",
        "InvalidModelException",
        "ModelException",
        "ModelNotFoundException",
        "ModelVersionNotFoundException",
    ),
    "org.pytorch.serve.http": (
        "BadRequestException",
        "ConflictStatusException",
        "InternalServerException",
        "InvalidModelVersionException",
        "RequestTimeoutException",
    ),
}
_CLASSES = {kind: f"{package}.{kind}" for package, kinds in _PACKAGES.items() for kind in kinds}


# In characters: a client's value may be in it, and the text must fit into a header.
_LONGEST_TEXT = 2000


class ParameterRequired(BadRequest):
    """A message without a field that is needed; the code is TorchServe's, which clients compare."""

    grpc_status = "INTERNAL"


@frozen
class Named:
    """
    An error as a client of TorchServe expects it.

    :ivar tag: The name of TorchServe's exception; ``""`` if TorchServe has none.
    """

    code: Code
    text: str
    tag: str

    def status(self, error: ServeError) -> Status:
        """Return the status for the end of a call, with the metadata that an error has."""
        message = f"{self.text}\n{self.tag}" if self.tag else self.text
        return evolve(status_of(error), code=self.code, message=message)


def prediction_error(error: ServeError) -> Named:
    """
    Return an error of the inference API.

    An unknown model or version is `Code.INTERNAL` as in TorchServe.  No worker and a full queue are `Code.UNAVAILABLE`,
    which clients retry, and not TorchServe's `Code.INTERNAL`.
    """
    if isinstance(error, (ModelNotFound, ModelVersionNotFound)):
        return _named(error, Code.INTERNAL)
    return _named(error)


def management_error(error: ServeError) -> Named:
    """Return an error of the management API."""
    if isinstance(error, MethodNotAllowed):
        return Named(Code.PERMISSION_DENIED, "Model API disabled", _CLASSES["ModelException"])
    return _named(error)


def prediction_status(error: ServeError) -> Status:
    """Return the status of an error of the inference API."""
    return prediction_error(error).status(error)


def management_status(error: ServeError) -> Status:
    """Return the status of an error of the management API."""
    return management_error(error).status(error)


def _named(error: ServeError, code: Code | None = None) -> Named:
    if code is None:
        code = code_of_http(error.status) if isinstance(error, WorkerFailed) else Code[error.grpc_status]
    return Named(code, error.message[:_LONGEST_TEXT], _tag_of(error))


def _tag_of(error: ServeError) -> str:
    if isinstance(error, ParameterRequired):
        return "BadRequestException.()"
    if isinstance(error, ServiceUnavailable):
        return "InternalServerException.()"
    return _CLASSES.get(error.kind, "")
