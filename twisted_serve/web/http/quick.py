# SPDX-License-Identifier: Apache-2.0
"""
Leave usual requests to the fast lane, and connections with little else to fronts.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from twisted.internet.tcp import Connection

from twisted_serve.eventloop.writing import is_idle
from twisted_serve.web.http.contracts import QuickRequest
from twisted_serve.web.http.large_bodies import LargeBodyChannel
from twisted_serve.web.http.request import ServeRequest


class QuickChannel(LargeBodyChannel):
    """The part of a connection that has the fast lane, and may be handed out to a front."""

    _finishing = False
    _quick: QuickRequest | None = None
    #: The last head that the fast lane has recognized here, for it to compare the next one with.
    recognized: Any = None
    #: How many usual requests in succession show that the connection is one for a front; 0 for one that is new.
    patience = 0
    _usual = 0

    def leave_to(self, quick: QuickRequest) -> None:
        """Leave a request to the fast lane, until it is answered or taken over."""
        self._quick = quick

    def answer_quickly(self, answer_id: str, lines: bytes, body: bytes) -> None:
        """Answer the request on the fast lane: see `write_whole`."""
        self._quick = None
        self.write_whole(answer_id, lines, body)

    def go_on(self) -> None:
        """Wait for the next request, after an answer on the fast lane; in a front, if most requests are like it."""
        self.resetTimeout()
        if self.site.fronts is not None:
            self._usual += 1
            if self._usual >= self.patience and not self._finishing and self._is_handed_out():
                self._ended()

    def _is_handed_out(self) -> bool:
        """Return whether a front has taken the connection; its transport is of no use then."""
        fronts, transport = self.site.fronts, self.transport
        if fronts is None or not isinstance(transport, Connection) or not transport.connected:
            return False
        return not (transport.TLS or transport.disconnecting) and is_idle(transport) and fronts.take(self)

    def adopt(self, request: ServeRequest) -> None:
        """Handle a request from the fast lane as if this channel had read it."""
        self._quick = None
        self.requests.append(request)
        self.persistent = self.checkPersistence(request, request.clientproto)
        if self.timeOut:
            self._savedTimeOut = self.setTimeout(None)
        self._handlingRequest = True
        self.setRawMode()

    @abstractmethod
    def _ended(self) -> None:
        """Cancel the timeouts and delayed calls, and remove the channel."""
