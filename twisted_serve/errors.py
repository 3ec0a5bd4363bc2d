# SPDX-License-Identifier: Apache-2.0
"""
Everything that can go wrong and that a client may be told about.

::

    ServeError
    ├── BadRequest                 400  BadRequestException
    ├── InvalidKey                 400  InvalidKeyException
    ├── Unauthorized               401  UnauthorizedException
    ├── InvalidModel               400  InvalidModelException
    ├── NotInstalled               400  ModelException
    ├── InvalidDag                 400  InvalidDAGException
    ├── DownloadFailed             400  DownloadArchiveException
    ├── InvalidModelVersion        403  InvalidModelVersionException
    ├── ResourceNotFound           404  ResourceNotFoundException
    ├── ModelNotFound              404  ModelNotFoundException
    ├── ModelVersionNotFound       404  ModelVersionNotFoundException
    ├── WorkflowNotFound           404  WorkflowNotFoundException
    ├── MethodNotAllowed           405  MethodNotAllowedException
    ├── RequestTimeout             408  RequestTimeoutException
    ├── Conflict                   409  ConflictStatusException
    ├── RequestTooLarge            413  RequestTooLargeException
    ├── UnsupportedEncoding        415  UnsupportedMediaTypeException
    ├── ExpectationFailed          417  ExpectationFailedException
    ├── CodingNotImplemented       501  NotImplementedException
    ├── ServiceUnavailable         503  ServiceUnavailableException
    ├── VersionNotSupported        505  HttpVersionNotSupportedException
    ├── InvalidWorkflow            500  InvalidWorkflowException
    ├── WorkflowNotRegistered      500  WorkflowException
    └── InternalError              500  InternalServerException
        └── WorkerFailed           (the worker's own code)
            └── WorkerDied         500 or 507

The ``type`` names are the predecessor's class names: clients switch on them
(``docs/torchserve/rest_api.md`` §15).  One place per transport turns these into answers;
anything outside this tree becomes a logged 500 which tells the client nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self


class ServeError(Exception):
    """
    An error which is the client's to know.

    :ivar message: What the client reads, in the predecessor's words where it has some.
    :ivar reason: Why it came to that, for the operator who reads the answer; may be ``None``.
    :cvar status: The HTTP status code.
    :cvar kind: The ``type`` member of the JSON error body.
    :cvar grpc_status: The gRPC status name.
    """

    status: int = 500
    kind: ClassVar[str] = "InternalServerException"
    grpc_status: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason: str | None = None

    def because(self, reason: str | None) -> Self:
        """Return this error, saying why, if that is known."""
        self.reason = reason
        return self


class BadRequest(ServeError):
    """The request cannot be understood; sending it again will not help."""

    status = 400
    kind = "BadRequestException"
    grpc_status = "INVALID_ARGUMENT"


class InvalidKey(ServeError):
    """The token is missing, wrong, expired, or of another kind."""

    status = 400
    kind = "InvalidKeyException"
    grpc_status = "PERMISSION_DENIED"


class Unauthorized(ServeError):
    """What is asked for needs a token of its own, which is missing or wrong."""

    status = 401
    kind = "UnauthorizedException"
    grpc_status = "UNAUTHENTICATED"


class InvalidModel(ServeError):
    """The archive is not one that can be served; the message says what is wrong with it."""

    status = 400
    kind = "InvalidModelException"
    grpc_status = "INVALID_ARGUMENT"


class NotInstalled(ServeError):
    """What a model needs cannot be installed; the reason has the end of pip's output."""

    status = 400
    kind = "ModelException"
    grpc_status = "INVALID_ARGUMENT"


class InvalidDag(ServeError):
    """The nodes of a workflow do not follow each other in a way that comes to an end; the reason names them."""

    status = 400
    kind = "InvalidDAGException"
    grpc_status = "INVALID_ARGUMENT"


class DownloadFailed(ServeError):
    """The archive could not be fetched from where the client said it is."""

    status = 400
    kind = "DownloadArchiveException"
    grpc_status = "INVALID_ARGUMENT"


class InvalidModelVersion(ServeError):
    """The operation is not allowed on this version, e.g. removing the default one."""

    status = 403
    kind = "InvalidModelVersionException"
    grpc_status = "FAILED_PRECONDITION"


class ResourceNotFound(ServeError):
    """There is nothing at this path."""

    status = 404
    kind = "ResourceNotFoundException"
    grpc_status = "NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("Requested resource is not found, please refer to API document.")


class ModelNotFound(ServeError):
    """No model of this name, or no archive at this location."""

    status = 404
    kind = "ModelNotFoundException"
    grpc_status = "NOT_FOUND"

    @classmethod
    def named(cls, name: str) -> ModelNotFound:
        """Say that no model is registered as ``name``."""
        return cls(f"Model not found: {name}")


class ModelVersionNotFound(ServeError):
    """The model exists; this version of it does not."""

    status = 404
    kind = "ModelVersionNotFoundException"
    grpc_status = "NOT_FOUND"

    @classmethod
    def of(cls, name: str, version: str) -> ModelVersionNotFound:
        """Say that ``name`` has no ``version``."""
        return cls(f"Model version: {version} does not exist for model: {name}")


class WorkflowNotFound(ServeError):
    """No workflow of this name, or no archive at this location."""

    status = 404
    kind = "WorkflowNotFoundException"
    grpc_status = "NOT_FOUND"

    @classmethod
    def named(cls, name: str) -> WorkflowNotFound:
        """Say that no workflow is registered as ``name``."""
        return cls(f"Workflow not found: {name}")


class MethodNotAllowed(ServeError):
    """
    The path exists; this method on it does not, or is switched off.

    :ivar allowed: The methods that do, ``None`` if that is known by the path alone.
    """

    status = 405
    kind = "MethodNotAllowedException"
    grpc_status = "UNIMPLEMENTED"

    def __init__(self, allowed: Iterable[str] | None = None) -> None:
        super().__init__("Requested method is not allowed, please refer to API document.")
        self.allowed = None if allowed is None else frozenset(allowed)


class RequestTimeout(ServeError):
    """The work did not finish in the time it was given; it may be tried again."""

    status = 408
    kind = "RequestTimeoutException"
    grpc_status = "DEADLINE_EXCEEDED"


class Conflict(ServeError):
    """What the client wants to create exists already."""

    status = 409
    kind = "ConflictStatusException"
    grpc_status = "ALREADY_EXISTS"


class RequestTooLarge(ServeError):
    """The body is larger than ``max_request_size``."""

    status = 413
    kind = "RequestTooLargeException"
    grpc_status = "RESOURCE_EXHAUSTED"


class UnsupportedEncoding(ServeError):
    """The body is compressed in a way that is not supported."""

    status = 415
    kind = "UnsupportedMediaTypeException"
    grpc_status = "INVALID_ARGUMENT"


class ExpectationFailed(ServeError):
    """The client expects something other than ``100-continue``."""

    status = 417
    kind = "ExpectationFailedException"
    grpc_status = "INVALID_ARGUMENT"

    def __init__(self) -> None:
        super().__init__("The only expectation that can be met is 100-continue.")


class CodingNotImplemented(ServeError):
    """The body is in a transfer coding that is not supported (RFC 9112 §6.1)."""

    status = 501
    kind = "NotImplementedException"
    grpc_status = "UNIMPLEMENTED"


class VersionNotSupported(ServeError):
    """The request is in another major version of HTTP (RFC 9110 §15.6.6)."""

    status = 505
    kind = "HttpVersionNotSupportedException"
    grpc_status = "UNIMPLEMENTED"


class ServiceUnavailable(ServeError):
    """
    Nothing can take the request now.

    :ivar retry_after: Seconds after which trying again makes sense, or ``None``.
    """

    status = 503
    kind = "ServiceUnavailableException"
    grpc_status = "UNAVAILABLE"

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidWorkflow(ServeError):
    """The archive is no workflow that can be run; message and reason say what is wrong with it."""

    # The client's mistake, but the predecessor's status.
    kind = "InvalidWorkflowException"


class WorkflowNotRegistered(ServeError):
    """Some node of a workflow could not be registered or started, and so none is; the message lists them."""

    kind = "WorkflowException"


class InternalError(ServeError):
    """Something on our side failed; the message is safe to show."""


class WorkerFailed(InternalError):
    """
    A worker answered with an error, or died over the request.

    The status is the worker's (``docs/torchserve/rest_api.md`` §5.2), the ``type`` always
    ``InternalServerException``.

    :ivar detail: What went wrong in the handler, and where, in one line: not for every client.
    :ivar printed: Whether the model's log has the traceback.
    """

    def __init__(self, status: int, message: str, detail: str = "", printed: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.printed = printed

    def another(self) -> WorkerFailed:
        """Make the same error for another request: each is raised, and added to, for itself."""
        return WorkerFailed(self.status, self.message, self.detail, self.printed)


class WorkerDied(WorkerFailed):
    """
    A worker was lost over the request, or never got to it.

    :ivar killed: Whether it was killed with SIGKILL, as the kernel does when memory runs out: the status is 507 then.
    :ivar how: How it ended, for the log.
    """

    def __init__(self, killed: bool = False, how: str = "it died") -> None:
        super().__init__(507 if killed else 500, "Worker died.")
        self.killed = killed
        self.how = how

    def another(self) -> WorkerDied:
        """See `WorkerFailed`."""
        return WorkerDied(self.killed, self.how)
