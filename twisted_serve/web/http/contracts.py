# SPDX-License-Identifier: Apache-2.0
"""
Define what the parts of an HTTP connection need of each other.

The imports go one way, from site to channel to request to responses; what is needed in the other direction is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from twisted_serve.auth.asking import Asking, Declined
from twisted_serve.auth.gate import Allowed, Authorizer, Denied, OpenAuthorizer
from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.planes.senders import Sender
from twisted_serve.web.http.limits import Limits


class QuickRequest(Protocol):
    """A request that has left its channel on the fast lane, and is not answered."""

    def take_over(self) -> object:
        """Make a `ServeRequest` of it, which its channel then handles as any other."""


class FastLane(Protocol):
    """Takes usual requests from channels."""

    def take(self, channel: Any, data: bytes) -> bool:
        """Take the request that is all of ``data``, or return ``False``, and the channel parses it."""


class Fronts(Protocol):
    """Takes connections into other processes, which read and write them."""

    def take(self, channel: Any) -> bool:
        """Take the idle connection of a channel, or return ``False``, and the channel keeps it."""


@runtime_checkable
class ChannelSite(Protocol):
    """
    The part of a site that its channels and their requests use.

    :ivar authorizer: Checks a request when its head has been read.
    :ivar asking: Asks the application's authorizer; ``None`` if there is none.
    :ivar resource: Serves all requests.
    :ivar extra_headers: The headers of all responses.
    :ivar server_timing: Whether responses have the ``Server-Timing`` header.
    :ivar channels: The open connections.
    :ivar fast_lane: Takes usual requests from channels; ``None`` if there is none.
    :ivar fronts: Takes idle connections from channels; ``None`` if there are no other processes for them.
    """

    limits: Limits
    authorizer: Authorizer | OpenAuthorizer
    asking: Asking | None
    resource: IResource
    reactor: IReactorTime
    defer_to_thread: DeferToThread
    extra_headers: Mapping[bytes, bytes]
    server_timing: bool
    channels: set[Any]
    fast_lane: FastLane | None
    fronts: Fronts | None

    @property
    def refuse(self) -> Callable[[IRequest, Denied], bytes]:
        """Renders the response to a denied request."""

    @property
    def decline(self) -> Callable[[IRequest, Declined], bytes]:
        """Renders the response to a request that an authorizer did not admit."""

    @property
    def take(self) -> Callable[[Allowed, IRequest], Sender | Denied]:
        """Takes a request with a named key."""

    def take_from(self, peer: str, allowed: Allowed, method: bytes, uri: bytes) -> Sender | Denied:
        """Take a request with a named key from an address."""

    def log_quick(
        self,
        peer: tuple[str, int] | None,
        method: bytes,
        target: bytes,
        began: float,
        request_id: str,
        named: bool,
        principal: str | None,
    ) -> None:
        """Log and count a request that was answered on the fast lane."""

    @property
    def date(self) -> Callable[[], bytes]:
        """Returns the value of the ``Date`` header."""

    def shown(self, detail: str) -> str | None:
        """Return the part of a handler's error that clients may see; ``None`` if they may see nothing."""

    def log_unread(self, address: IAddress, status: int, request_id: str) -> None:
        """Log and count the response to bytes that are not a request."""

    def log_abandoned(self, request: Any) -> None:
        """Log a request whose connection was lost before its response."""

    def channel_lost(self, channel: Any) -> None:
        """Remove a channel whose connection was lost."""


@runtime_checkable
class RequestChannel(Protocol):
    """
    The part of a channel that its requests and their responses use.

    :ivar persistent: Whether the connection stays open after the response; initially 1, set by Twisted.
    """

    site: ChannelSite
    limits: Limits
    persistent: int
    transport: Any

    def getPeer(self) -> IAddress:
        """Return the address of the client."""

    @property
    def stalled(self) -> bool:
        """Whether the client must read before more can be sent."""

    def answer_early(self, error: ServeError) -> None:
        """Respond with an error to the request that is being read, and drop the rest of it."""

    def write_whole(self, answer_id: str, lines: bytes, body: bytes) -> None:
        """Send a complete response with status 200: its id, its header lines and its body."""

    def send_head(self) -> None:
        """Send the head alone, unless already sent."""


@runtime_checkable
class AnsweredRequest(Protocol):
    """The part of a request that its response uses."""

    responseHeaders: Headers

    @property
    def channel(self) -> RequestChannel | None:
        """The channel of the request; ``None`` when the connection is lost."""

    def server_timing(self) -> bytes | None:
        """Return the value of the ``Server-Timing`` header; ``None`` if the header is off."""
