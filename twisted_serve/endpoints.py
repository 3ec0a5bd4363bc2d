# SPDX-License-Identifier: Apache-2.0
"""
This module implements what authors of plug-ins write: endpoints of their own on the server's listeners.

A plug-in is a distribution with an entry point in the group ``twisted_serve.endpoints``
that leads to an :class:`Endpoint`; ``docs/plugins.md`` has a whole one.
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

#: Which listener an endpoint is on, and so which key it needs.
Kind: TypeAlias = Literal["inference", "management"]

#: The group of entry points.
GROUP = "twisted_serve.endpoints"

# What must mean the same on every server: keys are replaced there, probes and descriptions are open to everybody.
RESERVED = frozenset({"api-description", "docs", "livez", "metrics", "readyz", "token"})

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,63}", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")

# The server's own business: it knows how long an answer is and what becomes of the connection.
_OURS = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"})


@frozen
class Worker:
    """
    A worker of a model.

    :ivar ready: Whether it has loaded the model, and runs.
    """

    id: str
    ready: bool


@frozen
class Model:
    """
    One version of a registered model.

    :ivar default: Whether requests which name no version are for it.
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
    What an endpoint may know of the server, at the moment of the request.

    :ivar models: Every registered version, in the order of registration.
    :ivar settings: The settings as text; those which are not set, and secrets, are left out.
    """

    models: tuple[Model, ...]
    settings: Mapping[str, str]


@frozen
class EndpointRequest:
    """
    A request that passed the gate.

    :ivar segments: The decoded path, its first segment included.
    :ivar query: The values of each parameter, in order.
    :ivar headers: By lower-case name; of a repeated one the last value.  The client's key is left out.
    :ivar body: The whole body, at most ``max_request_size`` bytes.
    """

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]
    body: bytes


@frozen
class EndpointAnswer:
    """
    What is to be answered.

    :ivar headers: Besides those which every answer has.
    :raise ValueError: for what cannot be sent.
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
            if not _HEADER.fullmatch(name) or name.lower() in _OURS or not _HEADER_VALUE.fullmatch(text):
                raise ValueError(f"an answer cannot have the header {name!r} with the value {text!r}")


#: Answers a request, at once or later.  It runs in the reactor's thread and must not block it.
Answering: TypeAlias = "Callable[[EndpointRequest, Context], EndpointAnswer | Deferred[EndpointAnswer]]"


def _may_be_taken(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, str) or not _SEGMENT.fullmatch(value):
        raise ValueError(f"an endpoint cannot be called {value!r}: expected letters, digits, '_', '.', '~' and '-'")
    if value in RESERVED:
        raise ValueError(f"an endpoint cannot be called {value!r}: that is the server's own")


@frozen
class Endpoint:
    """
    All paths of a listener with a certain first segment, however long they are and whatever the method.

    It goes before the server's own routes.

    :ivar segment: The first segment.
    :ivar kind: Which listener, and which key.
    :ivar origin: Where it comes from, to be read by people.
    :raise ValueError: for a segment which can be none, or must not be taken.
    """

    segment: str = field(validator=_may_be_taken)
    kind: Kind = field(validator=in_(("inference", "management")))
    answer: Answering
    origin: str = field()

    @origin.default
    def _name_of_the_function(self) -> str:
        module, name = getattr(self.answer, "__module__", "?"), getattr(self.answer, "__qualname__", repr(self.answer))
        return f"{module}:{name}"

    def coming_from(self, origin: str) -> Endpoint:
        """Return the same endpoint, saying where it comes from."""
        return evolve(self, origin=origin)


def by_segment(endpoints: Iterable[Endpoint]) -> dict[str, Endpoint]:
    """
    Order endpoints by what they are called.

    :raise ValueError: if two are called the same, naming both.
    """
    found: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        other = found.setdefault(endpoint.segment, endpoint)
        if other is not endpoint:
            raise ValueError(
                f'Multiple plugins found for endpoint "{endpoint.segment}": {other.origin} and {endpoint.origin}'
            )
    return found
