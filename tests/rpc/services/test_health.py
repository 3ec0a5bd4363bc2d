# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.rpc.services.health`, with real planes and fake workers."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.rpc.services.service_case import RecordingCall
from tests.specs import worker_spec
from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import BadRequest, ServeError, ServerNotRunning
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.rpc.contracts import Call, End, Known, Method, kind_of
from twisted_serve.rpc.descriptors import class_of, method_of
from twisted_serve.rpc.door import OpenDoor
from twisted_serve.rpc.engine import GrpcFactory, RpcLimits
from twisted_serve.rpc.messages import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from twisted_serve.rpc.services.health import (
    MOST_FROM_PEER,
    MOST_MESSAGE,
    MOST_NAME,
    MOST_WATCHERS,
    Health,
    TooManyWatchers,
    UnknownService,
    health_endpoints,
)
from twisted_serve.rpc.statuses import Code, status_of
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.testing.rpc import MemoryRpcCall, MemoryRpcConnection

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"

UNKNOWN, SERVING = HealthCheckResponse.SERVICE_UNKNOWN, HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING

PEER = IPv4Address("TCP", "192.0.2.1", 50000)


class WatchingCall(RecordingCall):
    """A call from an address."""

    def __init__(self, peer: IAddress = PEER) -> None:
        super().__init__()
        self.peer = peer

    @property
    def states(self) -> list[int]:
        """The states in the messages that were sent."""
        return [message.status for message in self.sent]


class HealthTests(SynchronousTestCase):
    """Check, List and Watch."""

    knows_models = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.provider = FakeProvider(self.clock)
        self.catalogue = Catalogue()
        self.plane = InferencePlane(self.catalogue, ServerMetrics("host"))

        def known() -> InferencePlane | None:
            return self.plane if self.knows_models else None

        self.health = Health(self.plane, self.clock, [INFERENCE], lambda _call: known)
        self.endpoints: Any = health_endpoints(self.health)

    def add(self, name: str = "m", version: str = "1.0", start: bool = True) -> Pool:
        """Register a version with one worker, and start that."""
        settings = ModelSettings(min_workers=1, max_workers=1)
        spec = worker_spec(name, version, Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)
        now = datetime(2026, 1, 1, tzinfo=timezone.utc)
        pool = Pool(spec, settings, self.provider, self.clock, lambda: now, worker_ids=lambda: "9000")
        model = ModelVersion(
            name, version, name, Path("/m"), Manifest(name, version), ModelConfig(), "h.py", settings,
            loaded_at_startup=True,
        )  # fmt: skip
        self.catalogue.add(model, pool)
        if start:
            pool.start().addErrback(lambda failure: None)
        return pool

    def check(self, service: str = "") -> int:
        call: Call = WatchingCall()
        answer: HealthCheckResponse = self.endpoints["/grpc.health.v1.Health/Check"](
            call, HealthCheckRequest(service=service)
        )
        return answer.status

    def list(self) -> dict[str, int]:
        answer = self.endpoints["/grpc.health.v1.Health/List"](WatchingCall(), HealthListRequest())
        return {name: state.status for name, state in answer.statuses.items()}

    def watch(self, service: str = "", peer: IAddress = PEER) -> tuple[WatchingCall, Deferred[None]]:
        call = WatchingCall(peer)
        over = self.endpoints["/grpc.health.v1.Health/Watch"](call, HealthCheckRequest(service=service))
        self.addCleanup(over.addErrback, lambda failure: None)
        self.addCleanup(over.cancel)
        return call, over

    def timers(self) -> int:
        """Count the loops that run."""
        return len(self.clock.getDelayedCalls())


class CheckTests(HealthTests):
    """Tests for Check."""

    def test_ready(self) -> None:
        """The server, and each of its services, are what /readyz is; the process lives all the time."""
        pool = self.add(start=False)
        names = ["", "readiness", INFERENCE]
        self.assertEqual([self.check(name) for name in names], [NOT_SERVING] * 3)
        self.assertEqual(self.check("liveness"), SERVING)
        pool.start()
        self.assertEqual([self.check(name) for name in names], [SERVING] * 3)

    def test_starting(self) -> None:
        """A server that still loads its models is not ready, and an unknown model may be one of them."""
        self.catalogue.starting = True
        self.assertEqual([self.check(name) for name in ("", "m", "m/1.0")], [NOT_SERVING] * 3)

    def test_stopping(self) -> None:
        """A server that stops is not ready, nor are its models, from the first moment; the process still lives."""
        self.add()
        self.catalogue.stopping = True
        self.assertEqual([self.check(name) for name in ("", INFERENCE, "m", "m/1.0")], [NOT_SERVING] * 4)
        self.assertEqual(self.check("liveness"), SERVING)

    def test_model(self) -> None:
        """A model has its own state, by its name and with a version."""
        self.add("ready")
        self.add("loading", start=False)
        self.assertEqual([self.check(name) for name in ("ready", "ready/1.0")], [SERVING] * 2)
        self.assertEqual([self.check(name) for name in ("loading", "loading/1.0")], [NOT_SERVING] * 2)
        for name in ("absent", "ready/2.0", "ready/1.0/", "/1.0", "/"):
            with self.assertRaises(UnknownService, msg=name):
                self.check(name)

    def test_unknown(self) -> None:
        """An unknown name is NOT_FOUND, with a text that has the name."""
        with self.assertRaises(UnknownService) as caught:
            self.check("no\nsuch")
        status = status_of(caught.exception)
        self.assertEqual(status.code, Code.NOT_FOUND)
        self.assertIn(r"service is 'no\nsuch'", status.message)

    def test_long_name(self) -> None:
        """A name longer than any is refused, and not repeated."""
        with self.assertRaises(BadRequest) as caught:
            self.check("x" * (MOST_NAME + 1))
        self.assertEqual(status_of(caught.exception).code, Code.INVALID_ARGUMENT)
        self.assertLess(len(caught.exception.message), 100)
        with self.assertRaises(UnknownService):
            self.check("x" * MOST_NAME)

    def test_models_are_hidden(self) -> None:
        """A caller that may not know which models there are learns nothing by asking for names."""
        self.knows_models = False
        self.add()
        texts = set()
        for name in ("m", "z"):
            with self.assertRaises(UnknownService) as caught:
                self.check(name)
            texts.add(caught.exception.message.replace(name, "?"))
        self.assertEqual(len(texts), 1)
        self.catalogue.starting = True
        with self.assertRaises(UnknownService):
            self.check("z")
        self.assertEqual(self.watch("m")[0].states, [UNKNOWN])

    def test_key_is_not_asked_for_in_vain(self) -> None:
        """Whether a caller may know models is asked only for a name that may be a model's."""
        asked = []

        def known_to(call: Call) -> Known:
            asked.append(call)
            return lambda: None

        self.health = Health(self.plane, self.clock, [INFERENCE], known_to)
        self.endpoints = health_endpoints(self.health)
        for name in ("", "liveness", "readiness", INFERENCE):
            self.check(name)
            self.watch(name)
        self.assertEqual(asked, [])
        self.watch("m")
        self.assertEqual(len(asked), 1)

    def test_model_named_as_a_probe(self) -> None:
        """A model cannot take the place of a probe."""
        self.add("liveness", start=False)
        self.assertEqual(self.check("liveness"), SERVING)


class ListTests(HealthTests):
    """Tests for List."""

    def test_all(self) -> None:
        """Each service is listed with its state, and each model."""
        self.add()
        self.add("other", start=False)
        self.assertEqual(
            self.list(),
            {
                "": NOT_SERVING,
                "liveness": SERVING,
                "readiness": NOT_SERVING,
                INFERENCE: NOT_SERVING,
                "m": SERVING,
                "other": NOT_SERVING,
            },
        )

    def test_models_are_hidden(self) -> None:
        """Models are not listed to a caller that may not know them."""
        self.knows_models = False
        self.add()
        self.assertEqual(self.list().keys(), {"", "liveness", "readiness", INFERENCE})


class WatchTests(HealthTests):
    """Tests for Watch."""

    def test_changes(self) -> None:
        """The state is sent at once, and after each change, and not otherwise."""
        self.add(start=False)
        call, over = self.watch()
        self.assertEqual(call.states, [NOT_SERVING])
        self.clock.pump([1.0] * 5)
        self.assertEqual(call.states, [NOT_SERVING])
        self.catalogue.pool_of(self.plane.find("m", None)).start()
        self.clock.pump([1.0] * 5)
        self.assertEqual(call.states, [NOT_SERVING, SERVING])
        self.catalogue.stopping = True
        self.clock.pump([1.0] * 5)
        self.assertEqual(call.states, [NOT_SERVING, SERVING, NOT_SERVING])
        self.assertNoResult(over)

    def test_model_appears(self) -> None:
        """A name that is unknown is watched, too: a model may be registered under it, and unregistered."""
        call, _over = self.watch("m")
        self.add()
        self.clock.advance(1)
        self.catalogue.remove("m", None)
        self.clock.advance(1)
        self.assertEqual(call.states, [UNKNOWN, SERVING, UNKNOWN])

    def test_client_leaves(self) -> None:
        """Nothing is kept of a call that is over, and nothing runs without calls."""
        first, first_over = self.watch()
        _second, second_over = self.watch("m")
        self.assertEqual(self.timers(), 1)
        first_over.cancel()
        self.failureResultOf(first_over, CancelledError)
        self.assertEqual(self.timers(), 1)
        second_over.cancel()
        self.failureResultOf(second_over, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.catalogue.stopping = True
        self.clock.advance(5)
        self.assertEqual(first.states, [SERVING])
        self.watch()
        self.assertEqual(self.timers(), 1)

    def test_client_does_not_read(self) -> None:
        """While a client does not read, nothing is queued for it; then it gets the latest state, if that is another."""
        call, _over = self.watch()
        assert call.producer is not None
        call.producer.pauseProducing()
        for stopping in [True, False] * 50:
            self.catalogue.stopping = stopping
            self.clock.advance(1)
        self.assertEqual(call.states, [SERVING])
        call.producer.resumeProducing()
        self.assertEqual(call.states, [SERVING])
        call.producer.pauseProducing()
        self.catalogue.stopping = True
        self.clock.advance(1)
        call.producer.resumeProducing()
        self.assertEqual(call.states, [SERVING, NOT_SERVING])

    def test_paused_from_the_start(self) -> None:
        """A client without a window gets the first state when it has one."""

        class PausedCall(WatchingCall):
            def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
                super().registerProducer(producer, streaming)
                producer.pauseProducing()

        call = PausedCall()
        over = self.health.watch(call, HealthCheckRequest())
        self.assertEqual(call.sent, [])
        assert call.producer is not None
        call.producer.resumeProducing()
        self.assertEqual(call.states, [SERVING])
        call.producer.stopProducing()
        over.cancel()
        self.failureResultOf(over, CancelledError)

    def test_connection_limit(self) -> None:
        """One connection has a bounded number of calls; others are not affected, and a call that ends makes room."""
        watching = [self.watch() for _ in range(MOST_FROM_PEER)]
        with self.assertRaises(TooManyWatchers) as caught:
            self.watch("m")
        self.assertEqual(status_of(caught.exception).code, Code.RESOURCE_EXHAUSTED)
        self.watch(peer=IPv4Address("TCP", "192.0.2.1", 50001))
        self.assertEqual(self.check(), SERVING)
        _call, over = watching[0]
        over.cancel()
        self.failureResultOf(over, CancelledError)
        self.watch()

    def test_limit_in_all(self) -> None:
        """The server has a bounded number of calls that watch, those over unix sockets included."""
        for port in range(MOST_WATCHERS - MOST_FROM_PEER - 1):
            self.watch(peer=IPv4Address("TCP", "192.0.2.1", port))
        for _ in range(MOST_FROM_PEER + 1):
            self.watch(peer=UNIXAddress(None))
        with self.assertRaises(TooManyWatchers):
            self.watch(peer=UNIXAddress(None))
        self.assertEqual(self.check(), SERVING)
        self.assertEqual(self.timers(), 1)

    def test_cost_of_a_look(self) -> None:
        """A state is found once for all that watch the same name."""
        asked = []

        class CountingPlane(InferencePlane):
            def ready(self) -> bool:
                asked.append(1)
                return super().ready()

        plane = CountingPlane(self.catalogue, ServerMetrics("host"))
        self.health = Health(plane, self.clock, [], lambda _call: lambda: None)
        self.endpoints = health_endpoints(self.health)
        for port in range(100):
            self.watch(peer=IPv4Address("TCP", "192.0.2.1", port))
        asked.clear()
        self.clock.advance(1)
        self.assertEqual(len(asked), 1)

    def test_long_name(self) -> None:
        """A name longer than any is refused, and not kept."""
        with self.assertRaises(BadRequest):
            self.watch("x" * (MOST_NAME + 1))
        self.assertEqual(self.timers(), 0)

    def test_server_stops(self) -> None:
        """At the end each client gets the last state and UNAVAILABLE, so that no stream holds the stop back."""
        call, over = self.watch()
        other, other_over = self.watch("liveness")
        self.catalogue.stopping = True
        self.health.close()
        self.assertEqual((call.states, other.states), ([SERVING, NOT_SERVING], [SERVING]))
        for each in (over, other_over):
            error = self.failureResultOf(each, ServerNotRunning).value
            assert isinstance(error, ServeError)
            self.assertEqual(status_of(error).code, Code.UNAVAILABLE)
        self.assertIsNone(call.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        with self.assertRaises(ServerNotRunning):
            self.watch()
        self.assertEqual(self.check(), NOT_SERVING)

    def test_end_of_one_ends_another(self) -> None:
        """A call that goes because another has ended, as all of a connection do, is no obstacle to the stop."""
        _, first_over = self.watch()
        _, second_over = self.watch()
        first_over.addErrback(lambda failure: second_over.cancel())
        self.health.close()
        self.failureResultOf(second_over, CancelledError)


class WireTests(HealthTests):
    """The service behind a connection, as clients without a key see it."""

    def setUp(self) -> None:
        super().setUp()
        methods = {}
        for path, answer in health_endpoints(self.health).items():
            descriptor = method_of(path)
            methods[path.encode()] = Method(
                path, kind_of(descriptor), class_of(descriptor.input_type), answer, most=MOST_MESSAGE
            )
        self.ends: list[End] = []
        self.factory = GrpcFactory(methods, OpenDoor(), self.ends.append, RpcLimits(), self.clock, maybeDeferred)

    def connect(self, port: int = 50000) -> MemoryRpcConnection:
        return MemoryRpcConnection(
            self.factory, lambda: self.clock.advance(0), peer=IPv4Address("TCP", "192.0.2.1", port)
        )

    def states(self, call: MemoryRpcCall) -> list[int]:
        return [each.status for each in call.parsed(HealthCheckResponse)]

    def advance(self, *connections: MemoryRpcConnection) -> None:
        self.clock.advance(1)
        for connection in connections:
            connection.pump()

    def test_check(self) -> None:
        """A probe gets its answer, or NOT_FOUND."""
        connection = self.connect()
        call = connection.call("/grpc.health.v1.Health/Check", HealthCheckRequest())
        self.assertEqual((self.states(call), call.code), ([SERVING], 0))
        call = connection.call("/grpc.health.v1.Health/Check", HealthCheckRequest(service="é\n"))
        self.assertEqual((call.code, call.text), (5, "service is 'é\\n', which this server does not have"))

    def test_watch(self) -> None:
        """A stream has the states, until the client leaves; then nothing is left."""
        connection = self.connect()
        call = connection.call("/grpc.health.v1.Health/Watch", HealthCheckRequest())
        self.assertEqual(self.states(call), [SERVING])
        self.catalogue.stopping = True
        self.advance(connection)
        self.assertEqual((self.states(call), call.over), ([SERVING, NOT_SERVING], False))
        call.cancel()
        self.assertEqual([end.code for end in self.ends], [Code.CANCELLED])
        self.assertFalse(self.health._watchers)

    def test_connection_lost(self) -> None:
        """A lost connection ends all that was watched on it, so that others find room."""
        connection = self.connect()
        calls = [
            connection.call("/grpc.health.v1.Health/Watch", HealthCheckRequest()) for _ in range(MOST_FROM_PEER + 1)
        ]
        self.assertEqual([call.code for call in calls], [None] * MOST_FROM_PEER + [8])
        connection.leave()
        self.assertFalse(self.health._watchers)
        self.assertFalse(self.health._peers)
        again = self.connect().call("/grpc.health.v1.Health/Watch", HealthCheckRequest())
        self.assertEqual(self.states(again), [SERVING])

    def test_stop(self) -> None:
        """At the stop, the clients get the last state and UNAVAILABLE, and the connection closes."""
        connection = self.connect()
        call = connection.call("/grpc.health.v1.Health/Watch", HealthCheckRequest())
        self.catalogue.stopping = True
        self.health.close()
        self.factory.finish_up()
        self.advance(connection)
        self.assertEqual((self.states(call), call.code), ([SERVING, NOT_SERVING], 14))
        closed = self.factory.all_closed(5)
        self.advance(connection)
        self.successResultOf(closed)

    def test_client_that_does_not_read(self) -> None:
        """A client without windows does not make the server keep a message for each change."""
        connection = self.connect()
        connection.reading = False
        connection.stop_reading()
        call = connection.begin("/grpc.health.v1.Health/Watch")
        connection.read_on()
        call.send(HealthCheckRequest(), end=True)
        connection.stop_reading()
        for stopping in [True, False] * 100:
            self.catalogue.stopping = stopping
            self.clock.advance(1)
        connection.read_on()
        connection.pump()
        self.assertLess(len(call.messages), 10)

    def test_large_message(self) -> None:
        """A message larger than any is refused before it is sent, although the client needs no key."""
        call = self.connect().call("/grpc.health.v1.Health/Check", HealthCheckRequest(service="x" * MOST_MESSAGE))
        self.assertEqual(call.code, Code.RESOURCE_EXHAUSTED)
