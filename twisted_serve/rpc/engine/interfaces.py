# SPDX-License-Identifier: Apache-2.0
"""
Define what calls need of their connection, and connections of their factory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure

from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.rpc.contracts import Door, End, Methods
from twisted_serve.rpc.engine.grants import Grants, Receiver
from twisted_serve.rpc.engine.limits import RpcLimits
from twisted_serve.rpc.engine.session import Session


class CallServices(Protocol):
    """
    What all calls of a listener share.

    :ivar on_end: Called once for each call that has ended.
    """

    methods: Methods
    door: Door
    on_end: Callable[[End], None]
    limits: RpcLimits
    reactor: IReactorTime
    defer_to_thread: DeferToThread

    def error_of(self, failure: Failure) -> ServeError:
        """Return the error to show to a client; log a failure that is not in the error tree."""


class EndedSide(Receiver, Protocol):
    """
    The client's side of a call that ends.

    :ivar ended: Whether the client had ended it.
    """

    ended: bool


class CallConnection(Protocol):
    """
    The connection of a call.

    :ivar peer: The address of the client.
    :ivar known: Whether a call of a known sender was admitted.
    """

    known: bool
    factory: CallServices
    session: Session
    grants: Grants
    peer: IAddress

    def send_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Send the headers or trailers of a call."""

    def watch(self, moment: float) -> None:
        """Check the calls at a time, in seconds of the clock."""

    def later(self, work: Callable[[], None]) -> None:
        """Call a function in the next turn."""

    def flush_soon(self) -> None:
        """Send what is to be sent."""

    def ended(self, stream: int, side: EndedSide) -> None:
        """Forget a call that has ended."""
