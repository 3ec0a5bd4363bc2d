# SPDX-License-Identifier: Apache-2.0
"""
Serve gRPC's health checking protocol, which needs no key, as ``/livez`` and ``/readyz``.

Callers that may not know which models there are get the same answers for all names of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from twisted_serve.errors import BadRequest, ServeError, ServerNotRunning
from twisted_serve.planes.inference import InferencePlane, SharedInference
from twisted_serve.rpc.contracts import Answer, Call, Known, KnownTo
from twisted_serve.rpc.messages import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from twisted_serve.rpc.services.health_states import States

#: Bytes of a message, for `Method.most`.
MOST_MESSAGE = 4096

#: Characters of a name: more than that of any model with its version.
MOST_NAME = 512

#: How many calls of Watch there may be.
MOST_WATCHERS = 1000

#: How many of them there may be from one address and port, that is on one connection over TCP.
MOST_FROM_PEER = 16

# Seconds between two looks at the states while there are watchers.  Nothing announces each change of readiness, and a
# look costs microseconds for each name that is watched.
_INTERVAL = 1.0


class UnknownService(ServeError):
    """This server has no service with such a name."""

    status = 404
    kind = "ResourceNotFoundException"
    grpc_status = "NOT_FOUND"


class TooManyWatchers(ServeError):
    """The connection or the server has as many calls of Watch as it may have."""

    status = 429
    kind = "ServiceUnavailableException"
    grpc_status = "RESOURCE_EXHAUSTED"


@implementer(IPushProducer)
class _Watcher:
    """
    One call of Watch.

    :ivar models: Finds the models that its caller may know.

    While its client does not read, only the latest state is kept.
    """

    def __init__(self, call: Call, name: str, models: Known, forget: Callable[[_Watcher], None]) -> None:
        self.name, self.models, self.peer = name, models, call.peer
        self.over: Deferred[None] = Deferred(lambda _: forget(self))
        self._call = call
        self._sent: int | None = None
        self._latest: int | None = None
        self._paused = False

    def show(self, state: int) -> None:
        """Send a state if the client has another one."""
        self._latest = state
        if not self._paused and state != self._sent:
            self._sent = state
            self._call.send(HealthCheckResponse(status=state))

    def pauseProducing(self) -> None:
        """Send nothing."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send what has changed."""
        self._paused = False
        if self._latest is not None:
            self.show(self._latest)

    def stopProducing(self) -> None:
        """Send nothing any longer: the call is over, and `over` is cancelled."""
        self._paused = True

    def end(self) -> None:
        """End the call because the server stops."""
        self._call.unregisterProducer()
        self.over.errback(ServerNotRunning())


class Health:
    """
    The health of a server for all its listeners, and the calls that watch it.

    :param services: The full names of the services that the server has.
    :param known_to: Finds the models that a caller may know.
    """

    def __init__(
        self,
        plane: SharedInference,
        clock: IReactorTime,
        services: Iterable[str],
        known_to: KnownTo,
    ) -> None:
        self._states = States(plane, frozenset(services))
        self._known_to = known_to
        self._watchers: dict[_Watcher, None] = {}
        self._peers: Counter[object] = Counter()
        self._closed = False
        self._looking = LoopingCall(self.look)
        self._looking.clock = clock

    def check(self, call: Call, request: HealthCheckRequest) -> HealthCheckResponse:
        """
        Return the state of a service or model.

        :raise BadRequest: The name is too long for any.
        :raise UnknownService: There is none with this name.
        """
        name = _name_of(request)
        state = self._states.of(name, self._known(call, name)())
        if state is None:
            raise UnknownService(f"service is {name!r}, which this server does not have")
        return HealthCheckResponse(status=state)

    def list(self, call: Call, request: HealthListRequest) -> HealthListResponse:
        """Return the state of each service, and of each model if the caller may know them."""
        states = self._states.all(self._known_to(call)())
        return HealthListResponse(statuses={name: HealthCheckResponse(status=state) for name, state in states.items()})

    def watch(self, call: Call, request: HealthCheckRequest) -> Deferred[None]:
        """
        Send the state of a service or model now, and after each change; ``SERVICE_UNKNOWN`` while there is none.

        :return: Fails when the server stops; cancelled when the call ends.
        :raise BadRequest: The name is too long for any.
        :raise TooManyWatchers: The connection or the server has too many such calls.
        :raise ServerNotRunning: The server stops.
        """
        name = _name_of(request)
        watcher = _Watcher(call, name, self._known(call, name), self._forget)
        self._admit(watcher)
        call.registerProducer(watcher, True)
        watcher.show(self._state(name, watcher.models()))
        if not self._looking.running:
            self._looking.start(_INTERVAL, now=False)
        return watcher.over

    def look(self) -> None:
        """Send each watcher the state of its service if that has changed."""
        states: dict[tuple[str, InferencePlane | None], int] = {}
        for watcher in list(self._watchers):
            models = watcher.models()
            key = watcher.name, models
            if key not in states:
                states[key] = self._state(watcher.name, models)
            watcher.show(states[key])

    def close(self) -> None:
        """Send the last states, and end all calls that watch: they would last as long as their clients."""
        self._closed = True
        self.look()
        while self._watchers:
            watcher = next(iter(self._watchers))
            self._forget(watcher)
            watcher.end()

    def _known(self, call: Call, name: str) -> Known:
        """Return how to find the models that a caller may know, if the name may be that of a model."""
        return _nothing if self._states.is_server(name) else self._known_to(call)

    def _state(self, name: str, models: InferencePlane | None) -> int:
        state = self._states.of(name, models)
        return HealthCheckResponse.SERVICE_UNKNOWN if state is None else state

    def _admit(self, watcher: _Watcher) -> None:
        if self._closed:
            raise ServerNotRunning
        if len(self._watchers) >= MOST_WATCHERS:
            raise TooManyWatchers(f"{MOST_WATCHERS} calls watch the health of this server; there may be no more.")
        peer = _connection_of(watcher.peer)
        if peer is not None and self._peers[peer] >= MOST_FROM_PEER:
            raise TooManyWatchers(f"{MOST_FROM_PEER} calls of this connection watch health; there may be no more.")
        self._watchers[watcher] = None
        self._peers[peer] += 1

    def _forget(self, watcher: _Watcher) -> None:
        del self._watchers[watcher]
        peer = _connection_of(watcher.peer)
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]
        if not self._watchers and self._looking.running:
            self._looking.stop()


def health_endpoints(health: Health) -> dict[str, Answer]:
    """Return the methods of the service, which are open on every listener."""
    service = "/grpc.health.v1.Health/"
    return {f"{service}Check": health.check, f"{service}List": health.list, f"{service}Watch": health.watch}


def _nothing() -> None:
    """Return no models: a caller has not asked for one."""


def _name_of(request: HealthCheckRequest) -> str:
    """
    Return the name in a request.

    :raise BadRequest: It is too long.
    """
    if len(request.service) > MOST_NAME:
        raise BadRequest(f"service has {len(request.service)} characters; at most {MOST_NAME} are allowed")
    return request.service


def _connection_of(peer: IAddress) -> object:
    """Return what all calls of a connection over TCP have in common; ``None`` for unix sockets, which have no port."""
    port = getattr(peer, "port", None)
    return None if port is None else (getattr(peer, "host", None), port)
