# SPDX-License-Identifier: Apache-2.0
"""
Hand connections out to fronts, and take them back.
"""

from __future__ import annotations

from itertools import count

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from twisted_serve.fronts.adoption import adopt, give_up
from twisted_serve.fronts.link import Absent, FrontLink
from twisted_serve.fronts.lost_transport import LostTransport
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.open_connections import AllClosed
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.routes.fast_lane import Lane

# A connection that has been returned is handed out again after this many usual requests in succession; after twice as
# many the next time, up to the second number.
_FIRST_PATIENCE = 2
_MOST_PATIENCE = 1 << 10


class Fronts:
    """
    The connections that fronts have.

    :ivar connections: The connections by their numbers.
    """

    def __init__(self, reactor: IServeReactor) -> None:
        self.connections: dict[int, Absent] = {}
        self._reactor = reactor
        self._numbers = count(1)
        self._links: list[FrontLink] = []
        self._finishing = False
        self._closing = AllClosed(reactor, self.connections, self.abort)

    def take(self, channel: ServeChannel) -> bool:
        """Take the idle connection of a channel into the front with the fewest; return whether there is one."""
        site = channel.site
        if (
            self._finishing
            or not self._links
            or not isinstance(site, ServeSite)
            or not isinstance(site.fast_lane, Lane)
        ):
            return False
        link = min(self._links, key=lambda link: len(link.connections))
        absent = Absent(
            next(self._numbers),
            link,
            site,
            site.fast_lane,
            channel.host,
            channel.peer,
            channel.address,
            channel.peer_host,
            channel.patience,
        )
        if not link.send(absent, channel.transport):
            return False
        self.connections[absent.number] = absent
        give_up(channel.transport)
        return True

    # The factory of connections, for the stop of a server

    def finish_up(self) -> None:
        """Take all connections back; each is closed as soon as it is idle."""
        self._finishing = True
        for link in self._links:
            link.finish()

    def all_closed(self, limit: float) -> Deferred[None]:
        """Return a Deferred that fires when no front has a connection; end the fronts after ``limit`` seconds."""
        return self._closing.wait(limit)

    def abort(self) -> None:
        """Abort every connection, by ending the fronts that have any."""
        for link in list(self._links):
            if link.connections:
                link.kill()

    # The owner of the links

    def front_started(self, link: FrontLink) -> None:
        """Use a front from now on, also for idle connections of those that have more than their share."""
        self._links.append(link)
        share = -(-len(self.connections) // len(self._links))
        for other in self._links:
            idle = [absent for absent in other.connections.values() if absent.request is None and not absent.unread]
            for absent in idle[: max(0, len(other.connections) - share)]:
                absent.moving = True
                absent.call_back()

    def front_lost(self, link: FrontLink, why: str) -> None:
        """Use a front no more."""
        if link in self._links:
            self._links.remove(link)
        link.kill()

    def connection_back(self, absent: Absent, descriptor: int, data: bytes) -> None:
        """Serve a connection in this process."""
        self._forget(absent)
        channel = absent.site.channel_for(absent.peer)
        if absent.moving and absent.request is None and not data:
            channel.patience = 0
        else:
            channel.patience = min(max(_FIRST_PATIENCE, 2 * absent.patience), _MOST_PATIENCE)
        try:
            adopt(self._reactor, descriptor, channel)
        except OSError:
            # The client has disconnected.
            self._vanish(absent)
        else:
            if absent.request is not None:
                absent.request.come_back(channel)
            if data:
                channel.waited = absent.waited
                channel.dataReceived(data)
            if self._finishing:
                channel.finish_up()
        self._closing.look()

    def connection_lost(self, absent: Absent) -> None:
        """Abandon the request of a client that has disconnected, or whose front has ended."""
        self._forget(absent)
        self._vanish(absent)
        self._closing.look()

    def _vanish(self, absent: Absent) -> None:
        """Do with a request as when the connection is lost here: it is logged, and so is a refusal."""
        if absent.request is None and not absent.unread:
            return
        channel = absent.site.channel_for(absent.peer)
        channel.makeConnection(LostTransport(absent.host, absent.peer))
        if absent.request is not None:
            absent.request.come_back(channel)
        if absent.unread:
            channel.dataReceived(absent.unread)
        channel.connectionLost(Failure(ConnectionLost()))

    def _forget(self, absent: Absent) -> None:
        del self.connections[absent.number]
