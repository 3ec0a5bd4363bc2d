# SPDX-License-Identifier: Apache-2.0
"""
Define all errors that are reported to clients.

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
    ├── KeyNotFound                404  KeyNotFoundException
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

The ``type`` names are TorchServe's class names, which clients compare (``docs/torchserve/rest_api.md`` §15).  Each
transport renders these errors in one place; any other exception is logged and answered with a 500 that contains no
details.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self


class ServeError(Exception):
    """
    An error that is reported to the client.

    :ivar message: The text for the client, TorchServe's where it has one.
    :ivar reason: The cause, for the operator; may be ``None``.
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
        """Set the reason, if known, and return this error."""
        self.reason = reason
        return self


class BadRequest(ServeError):
    """The request is invalid; sending it again will not help."""

    status = 400
    kind = "BadRequestException"
    grpc_status = "INVALID_ARGUMENT"


class InvalidKey(ServeError):
    """The token is missing, wrong, expired, or of another kind."""

    status = 400
    kind = "InvalidKeyException"
    grpc_status = "PERMISSION_DENIED"


class InsufficientScope(ServeError):
    """The key of the sender is good, and may not do this (RFC 6750 §3.1)."""

    status = 403
    kind = "InsufficientScopeException"
    grpc_status = "PERMISSION_DENIED"


class Unauthorized(ServeError):
    """The requested resource needs a separate token, which is missing or wrong."""

    status = 401
    kind = "UnauthorizedException"
    grpc_status = "UNAUTHENTICATED"


class InvalidModel(ServeError):
    """The archive cannot be served; the message is the reason."""

    status = 400
    kind = "InvalidModelException"
    grpc_status = "INVALID_ARGUMENT"


class NotInstalled(ServeError):
    """The model's packages cannot be installed; the reason has the end of pip's output."""

    status = 400
    kind = "ModelException"
    grpc_status = "INVALID_ARGUMENT"


class InvalidDag(ServeError):
    """The nodes of a workflow do not form a valid acyclic graph; the reason names them."""

    status = 400
    kind = "InvalidDAGException"
    grpc_status = "INVALID_ARGUMENT"


class DownloadFailed(ServeError):
    """The archive could not be fetched from the client's URL."""

    status = 400
    kind = "DownloadArchiveException"
    grpc_status = "INVALID_ARGUMENT"


class InvalidModelVersion(ServeError):
    """The operation is not allowed on this version, e.g. removing the default one."""

    status = 403
    kind = "InvalidModelVersionException"
    grpc_status = "FAILED_PRECONDITION"


class ResourceNotFound(ServeError):
    """No resource exists at this path."""

    status = 404
    kind = "ResourceNotFoundException"
    grpc_status = "NOT_FOUND"

    def __init__(self, message: str = "Requested resource is not found, please refer to API document.") -> None:
        super().__init__(message)


class ModelNotFound(ServeError):
    """No model has this name, or no archive is at this location."""

    status = 404
    kind = "ModelNotFoundException"
    grpc_status = "NOT_FOUND"

    @classmethod
    def named(cls, name: str) -> ModelNotFound:
        """Return the error for a name under which no model is registered."""
        return cls(f"Model not found: {name}")


class ModelVersionNotFound(ServeError):
    """The model has no such version."""

    status = 404
    kind = "ModelVersionNotFoundException"
    grpc_status = "NOT_FOUND"

    @classmethod
    def of(cls, name: str, version: str) -> ModelVersionNotFound:
        """Return the error for a model without this version."""
        return cls(f"Model version: {version} does not exist for model: {name}")


class WorkflowNotFound(ServeError):
    """No workflow has this name, or no archive is at this location."""

    status = 404
    kind = "WorkflowNotFoundException"
    grpc_status = "NOT_FOUND"

    @classmethod
    def named(cls, name: str) -> WorkflowNotFound:
        """Return the error for a name under which no workflow is registered."""
        return cls(f"Workflow not found: {name}")


class KeyNotFound(ServeError):
    """No named key has this name."""

    status = 404
    kind = "KeyNotFoundException"
    grpc_status = "NOT_FOUND"

    @classmethod
    def named(cls, name: str) -> KeyNotFound:
        """Return the error for a name that no key has."""
        return cls(f"Key not found: {name}")


class MethodNotAllowed(ServeError):
    """
    The path exists, but does not accept this method, or the method is disabled.

    :ivar allowed: The methods that the path accepts, ``None`` if they follow from the path alone.
    """

    status = 405
    kind = "MethodNotAllowedException"
    grpc_status = "UNIMPLEMENTED"

    def __init__(self, allowed: Iterable[str] | None = None) -> None:
        super().__init__("Requested method is not allowed, please refer to API document.")
        self.allowed = None if allowed is None else frozenset(allowed)


class RequestTimeout(ServeError):
    """The request was not completed in time; it may be retried."""

    status = 408
    kind = "RequestTimeoutException"
    grpc_status = "DEADLINE_EXCEEDED"


#: The message of a `RequestTimeout` for a request whose client waits no longer.
TOO_LATE = "The request was not answered within the time that its client gives it."


class Conflict(ServeError):
    """The resource to be created already exists, or what is there cannot be changed in this way."""

    status = 409
    kind = "ConflictStatusException"
    grpc_status = "ALREADY_EXISTS"


class RequestTooLarge(ServeError):
    """The body is larger than ``max_request_size``."""

    status = 413
    kind = "RequestTooLargeException"
    grpc_status = "RESOURCE_EXHAUSTED"


class TooManyRequests(ServeError):
    """
    The key of the sender has reached one of its limits.

    :ivar retry_after: Seconds after which a retry makes sense, or ``None``.
    """

    status = 429
    kind = "TooManyRequestsException"
    grpc_status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


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
    No worker can accept the request now.

    :ivar retry_after: Seconds after which a retry makes sense, or ``None``.
    """

    status = 503
    kind = "ServiceUnavailableException"
    grpc_status = "UNAVAILABLE"

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerNotRunning(ServeError):
    """The server has not been started, or has been stopped."""

    status = 503
    kind = "ServiceUnavailableException"
    grpc_status = "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The model server is not running.")


class InvalidWorkflow(ServeError):
    """The archive is not a workflow that can be run; message and reason describe the error."""

    # The error is the client's, but the status is TorchServe's.
    kind = "InvalidWorkflowException"


class WorkflowNotRegistered(ServeError):
    """A node of a workflow could not be registered or started, so no node is; the message lists the failed ones."""

    kind = "WorkflowException"


class InternalError(ServeError):
    """An error of the server; the message contains nothing confidential."""


class WorkerFailed(InternalError):
    """
    A worker answered with an error, or died while it processed the request.

    The status is the worker's (``docs/torchserve/rest_api.md`` §5.2), the ``type`` always ``InternalServerException``.

    :ivar detail: The error in the handler, and its location, in one line: not shown to every client.
    :ivar printed: Whether the traceback is in the model log.
    """

    def __init__(self, status: int, message: str, detail: str = "", printed: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.printed = printed

    def another(self) -> WorkerFailed:
        """Return a copy for another request, because each request's exception is raised and annotated separately."""
        return WorkerFailed(self.status, self.message, self.detail, self.printed)


class WorkerDied(WorkerFailed):
    """
    A worker ended while it processed the request, or before it received it.

    :ivar killed: Whether it was ended by SIGKILL, as the kernel does when memory runs out; the status is then 507.
    :ivar how: How it ended, for the log.
    """

    def __init__(self, killed: bool = False, how: str = "it died") -> None:
        super().__init__(507 if killed else 500, "Worker died.")
        self.killed = killed
        self.how = how

    def another(self) -> WorkerDied:
        """Return a copy for another request."""
        return WorkerDied(self.killed, self.how)
