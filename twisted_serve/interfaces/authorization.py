# SPDX-License-Identifier: Apache-2.0
"""
Define the interface of an application's authorizer, the question that it gets, and its two answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen
from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

# In characters.
_LONGEST_NAME = 256
_LONGEST_CHALLENGE = 1024


class TokenKind(Enum):
    """The kind of API that a token authorizes.  The kinds are not ranked: none includes another."""

    MANAGEMENT = "management"
    INFERENCE = "inference"
    API = "API"


class Operation(Enum):
    """What a client may ask of a server."""

    #: Answer a probe with yes or no.
    PROBE = auto()
    #: Describe the API of a listener.
    DESCRIBE_API = auto()
    #: Read the metrics where they are public but for ``metrics_token_file``, which the metrics routes check.
    SCRAPE_METRICS = auto()

    CHECK_HEALTH = auto()
    #: Read the names, versions and readiness of models, and how to call them.
    INSPECT_MODELS = auto()
    PREDICT = auto()
    EXPLAIN = auto()
    PREDICT_WORKFLOW = auto()

    LIST_MODELS = auto()
    DESCRIBE_MODEL = auto()
    REGISTER_MODEL = auto()
    SCALE_MODEL = auto()
    UNREGISTER_MODEL = auto()
    SET_DEFAULT_VERSION = auto()
    LIST_WORKFLOWS = auto()
    DESCRIBE_WORKFLOW = auto()
    REGISTER_WORKFLOW = auto()
    UNREGISTER_WORKFLOW = auto()
    #: Read the metrics where they are not public.
    READ_METRICS = auto()

    #: Replace the secret of a key.
    REPLACE_KEY = auto()
    #: Read the names, scopes and limits of the named keys.
    LIST_KEYS = auto()
    CREATE_KEY = auto()
    CHANGE_KEY = auto()
    REVOKE_KEY = auto()


@frozen
class AccessRequest:
    """
    The question to an authorizer: may the sender of this request do this?

    :ivar operation: What the request asks of the server; ``None`` for a path or a method without a route, which will be
        404 or 405 for a client that is admitted, and for the endpoint of a plug-in.
    :ivar scope: The kind of key that the operation needs where keys decide.
    :ivar authorization: The values of all ``Authorization`` headers, in order, as sent.
    :ivar peer: The address of the client; behind ``haproxy:``, the one that the proxy names.
    :ivar method: The method of the request, as sent.
    :ivar segments: The decoded segments of its path: ``("predictions", "resnet")``; none if the path is malformed.  Of
        a gRPC call, whose method is ``POST``: service and method.
    """

    operation: Operation | None
    scope: TokenKind
    authorization: Sequence[bytes] = field(repr=False)
    peer: IAddress
    method: str
    segments: tuple[str, ...]


def _is_name(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _LONGEST_NAME:
        raise ValueError(f"a principal's name must be 1 to {_LONGEST_NAME} printable characters")


def _is_status(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, int) or not 400 <= value <= 499:
        raise ValueError(f"the status of a refusal must be from 400 to 499, not {value!r}")


def _is_text(_instance: object, attribute: object, value: Any) -> None:
    if value is None:
        return
    if not (
        isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value) <= _LONGEST_CHALLENGE
    ):
        name = getattr(attribute, "name", "")
        raise ValueError(f"the {name} of a refusal must be 1 to {_LONGEST_CHALLENGE} printable ASCII characters")


@frozen
class Principal:
    """
    The answer that admits a request.

    :ivar name: The name of its sender, for the access log and for handlers; not a secret.
    :raise ValueError: for a name that is empty, too long or not printable.
    """

    name: str = field(validator=_is_name)


@frozen
class Refusal:
    """
    The answer that refuses a request.

    :ivar status: 401 for a client that should send other credentials, 403 for one that may not do this, or another from
        400 to 499.
    :ivar challenge: The value of ``WWW-Authenticate``, such as ``Basic realm="models"``; a 401 needs one.
    :ivar message: The text for the client.
    :raise ValueError: for another status, a 401 without challenge, and for texts that cannot be sent.
    """

    status: int = field(default=403, validator=_is_status)
    challenge: str | None = field(default=None, validator=_is_text)
    message: str = field(default="Not authorized.", validator=_is_text)

    def __attrs_post_init__(self) -> None:
        if self.status == 401 and self.challenge is None:
            raise ValueError("a refusal with status 401 needs a challenge")


#: What an authorizer returns.
Verdict: TypeAlias = "Principal | Refusal"


class IAuthorizer(Interface):
    """Decides, instead of keys, which requests a server answers."""

    def authorize(asked: AccessRequest) -> Verdict | Awaitable[Verdict]:
        """
        Return whether a request is admitted, in the reactor's thread and without blocking it.

        It is called once for each request, when the head of the request has arrived and before its body is read.

        :return: A `Principal` or a `Refusal`; or a Deferred or a coroutine of one, one for each request, which is
            cancelled when the client disconnects or waits for too long.
        """
