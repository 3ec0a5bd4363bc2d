# SPDX-License-Identifier: Apache-2.0
"""
Define the public API for plug-ins that add endpoints to the server's listeners.

A plug-in is a distribution with an entry point in the group ``twisted_serve.endpoints`` that refers to an
:class:`Endpoint`; ``docs/plugins.md`` has a complete example.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import evolve, field, frozen
from attrs.validators import in_

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = ["Context", "Endpoint", "EndpointAnswer", "EndpointRequest", "Kind", "Model", "Worker", "by_segment"]

#: The listener of an endpoint, which also decides the key it needs.
Kind: TypeAlias = Literal["inference", "management"]

#: The group of entry points.
GROUP = "twisted_serve.endpoints"

# Segments that must mean the same on every server: keys are replaced there, and probes and descriptions are public.
RESERVED = frozenset({"api-description", "docs", "keys", "livez", "metrics", "readyz", "token"})

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,63}", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")

# Headers that the server sets itself, for framing and the connection.
_SERVER_HEADERS = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"})


@frozen
class Worker:
    """
    A worker of a model.

    :ivar ready: Whether it is running and has loaded the model.
    """

    id: str
    ready: bool


@frozen
class Model:
    """
    One version of a registered model.

    :ivar default: Whether it serves requests that name no version.
    """

    name: str
    version: str
    default: bool
    handler: str
    loaded_at_startup: bool
    workers: tuple[Worker, ...]


@frozen
class Context:
    """
    The state of the server at the time of the request.

    :ivar models: Every registered version, in the order of registration.
    :ivar settings: The settings as text; unset ones and secrets are omitted.
    """

    models: tuple[Model, ...]
    settings: Mapping[str, str]


@frozen
class EndpointRequest:
    """
    An authorized request.

    :ivar segments: The decoded path, its first segment included.
    :ivar query: The values of each parameter, in order.
    :ivar headers: By lower-case name, the last value of a repeated header; without the client's key.
    :ivar principal: The name of the sender, if an application's authorizer has named one.
    :ivar body: The whole body, at most ``max_request_size`` bytes.
    """

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]
    body: bytes
    principal: str | None = None


@frozen
class EndpointAnswer:
    """
    The response to a request.

    :ivar headers: In addition to those that every response has.
    :raise ValueError: for a value that cannot be sent.
    """

    body: bytes = field(default=b"", repr=False)
    status: int = field(default=200)
    headers: Mapping[str, str] = field(factory=dict)

    @body.validator
    def _is_bytes(self, _attribute: object, value: object) -> None:
        if not isinstance(value, bytes):
            raise ValueError(f"the body of an answer must be bytes, not {type(value).__name__}")

    @status.validator
    def _is_final(self, _attribute: object, value: object) -> None:
        if not isinstance(value, int) or not 200 <= value <= 599:
            raise ValueError(f"the status of an answer must be from 200 to 599, not {value!r}")

    @headers.validator
    def _can_be_sent(self, _attribute: object, value: Mapping[str, str]) -> None:
        for name, text in value.items():
            if not _HEADER.fullmatch(name) or name.lower() in _SERVER_HEADERS or not _HEADER_VALUE.fullmatch(text):
                raise ValueError(f"an answer cannot have the header {name!r} with the value {text!r}")


#: Answers a request, immediately or with a Deferred.  Runs in the reactor's thread and must not block.
Answering: TypeAlias = "Callable[[EndpointRequest, Context], EndpointAnswer | Deferred[EndpointAnswer]]"


def _is_valid_segment(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, str) or not _SEGMENT.fullmatch(value):
        raise ValueError(f"an endpoint cannot be called {value!r}: expected letters, digits, '_', '.', '~' and '-'")
    if value in RESERVED:
        raise ValueError(f"an endpoint cannot be called {value!r}: that is the server's own")


@frozen
class Endpoint:
    """
    All paths of a listener that begin with a certain segment, of any length and for any method.

    It takes precedence over the server's own routes.

    :ivar segment: The first segment.
    :ivar kind: The listener, which also decides the key.
    :ivar origin: The source of the endpoint, for messages.
    :raise ValueError: for an invalid or reserved segment.
    """

    segment: str = field(validator=_is_valid_segment)
    kind: Kind = field(validator=in_(("inference", "management")))
    answer: Answering
    origin: str = field()

    @origin.default
    def _default_origin(self) -> str:
        module, name = getattr(self.answer, "__module__", "?"), getattr(self.answer, "__qualname__", repr(self.answer))
        return f"{module}:{name}"

    def coming_from(self, origin: str) -> Endpoint:
        """Return a copy of this endpoint with another origin."""
        return evolve(self, origin=origin)


def by_segment(endpoints: Iterable[Endpoint]) -> dict[str, Endpoint]:
    """
    Return endpoints by their segments.

    :raise ValueError: if two have the same segment, naming both.
    """
    found: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        other = found.setdefault(endpoint.segment, endpoint)
        if other is not endpoint:
            raise ValueError(
                f'Multiple plugins found for endpoint "{endpoint.segment}": {other.origin} and {endpoint.origin}'
            )
    return found
