# SPDX-License-Identifier: Apache-2.0
"""Tests for the events of a server, which its observers get."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.assembly.observing import Notifier
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import ServerObserver
from twisted_serve.interfaces.events import (
    Event,
    KeyExpired,
    KeyExpiring,
    KeyRotated,
    ModelFailed,
    ModelLoaded,
    WorkerDied,
)
from twisted_serve.service import Dependencies
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.testing.server import EPOCH, MemoryServer, MemoryServeReactor

INFERENCE, MANAGEMENT = TokenKind.INFERENCE, TokenKind.MANAGEMENT


class Recording(ServerObserver):
    """Records all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def model_loaded(self, event: ModelLoaded) -> None:
        self.events.append(event)

    def model_failed(self, event: ModelFailed) -> None:
        self.events.append(event)

    def worker_died(self, event: WorkerDied) -> None:
        self.events.append(event)

    def key_expiring(self, event: KeyExpiring) -> None:
        self.events.append(event)

    def key_expired(self, event: KeyExpired) -> None:
        self.events.append(event)

    def key_rotated(self, event: KeyRotated) -> None:
        self.events.append(event)


class ObservedCase(SynchronousTestCase):
    """A server with an observer."""

    def serve(self, *more: ServerObserver, **arguments: Any) -> MemoryServer:
        self.observer = Recording()
        server = MemoryServer(dependencies={"observers": [*more, self.observer]}, **arguments)
        self.addCleanup(server.close)
        return server

    def told(self, server: MemoryServer, seconds: float = 0.0) -> list[Event]:
        """Let time pass, and return the events since the last call."""
        server.advance(seconds)
        events, self.observer.events = self.observer.events, []
        return events


class ModelTests(ObservedCase):
    """Models and their workers."""

    def test_loaded(self) -> None:
        """A start-up model and one that is registered later are told when their workers are there."""
        server = self.serve(models={"m": {}})
        self.assertEqual(self.told(server), [ModelLoaded("m", "1.0")])
        server.add_model("n", {})
        key = server.key(MANAGEMENT)
        for name, more in (("a", "&initial_workers=0"), ("b", ""), ("c", "&synchronous=false")):
            server.request("POST", f"/models?url=n&model_name={name}{more}", key)
        self.assertEqual(self.told(server), [ModelLoaded("b", "1.0"), ModelLoaded("c", "1.0")])

    def test_missing(self) -> None:
        """A start-up model that is not there is told as in the outcome of `ready`."""
        server = self.serve(models={"m": {}}, options={"load_models": "m,n=nothing"})
        [loaded, failed] = sorted(self.told(server), key=lambda event: type(event).__name__, reverse=True)
        outcome = self.successResultOf(server.server.ready)
        [failure] = outcome.failures
        self.assertEqual(loaded, ModelLoaded("m", "1.0"))
        self.assertEqual(failed, ModelFailed("n", None, failure.reason))
        self.assertEqual((failure.name, failure.url, failure.registered), ("n", "nothing", False))

    def test_failed(self) -> None:
        """A model whose workers fail to load is told with the reason, and so is each of its workers."""
        clock = MemoryServeReactor()
        provider = FakeProvider(clock)
        provider.load_error = WorkerFailed(500, "no weights")
        server = self.serve(models={"m": {}}, clock=clock, provider=provider)
        events = self.told(server)
        [failed] = [event for event in events if isinstance(event, ModelFailed)]
        self.assertEqual((failed.model, failed.version), ("m", "1.0"))
        self.assertIn("no weights", failed.reason)
        [died] = [event for event in events if isinstance(event, WorkerDied)]
        self.assertEqual((died.model, died.version, died.worker), ("m", "1.0", "9000"))
        self.assertIn("no weights", died.reason)
        [failure] = self.successResultOf(server.server.ready).failures
        self.assertTrue(failure.registered)
        self.assertEqual(failure.reason, failed.reason)

    def test_worker_died(self) -> None:
        """A worker that is lost is told, once; one that is stopped is not."""
        server = self.serve(models={"m": {}})
        self.told(server)
        server.provider.workers[0].kill()
        [died] = self.told(server)
        assert isinstance(died, WorkerDied)
        self.assertEqual((died.model, died.version, died.worker), ("m", "1.0", "9000"))
        self.assertEqual(died.reason, "exited")
        server.advance(60)
        self.told(server)
        server.request("PUT", "/models/m?min_worker=0&synchronous=true", server.key(MANAGEMENT))
        self.assertEqual(self.told(server, 60), [])
        self.assertFalse(server.provider.alive)

    def test_stop(self) -> None:
        """Models that are still being loaded when the server stops have not failed."""
        clock = MemoryServeReactor()
        provider = FakeProvider(clock, load_delay=60)
        server = self.serve(models={"m": {}}, clock=clock, provider=provider)
        server.server.stopService()
        server.advance(200)
        self.assertEqual(self.told(server), [])


class KeyTests(ObservedCase):
    """Keys, in virtual time."""

    def test_expiry(self) -> None:
        """A key is told before it expires, as long as the setting says, and when it has, once each."""
        server = self.serve(options={"token_expiration_min": 60, "token_warning_min": 5})
        ids = {kind: server.keys.of(kind).public_id for kind in (MANAGEMENT, INFERENCE)}
        expires = EPOCH + timedelta(minutes=60)
        self.assertEqual(self.told(server, 55 * 60 - 1), [])
        self.assertEqual(
            self.told(server, 1), [KeyExpiring(kind, ids[kind], expires, 300.0) for kind in (MANAGEMENT, INFERENCE)]
        )
        self.assertEqual(self.told(server, 299), [])
        self.assertEqual(
            self.told(server, 1), [KeyExpired(kind, ids[kind], expires) for kind in (MANAGEMENT, INFERENCE)]
        )
        self.assertEqual(self.told(server, 3600), [])

    def test_rotation(self) -> None:
        """A rotation is told with both public ids and its origin; no event holds a key."""
        server = self.serve()
        old = server.keys.inference
        server.request("POST", "/token?type=inference", server.key(TokenKind.API))
        [rotated] = self.told(server)
        new = server.keys.inference
        self.assertEqual(rotated, KeyRotated(INFERENCE, old.public_id, new.public_id, new.expires, "127.0.0.1"))
        server.advance(3600)
        said = repr([rotated, *self.told(server)])
        for token in (old, *server.keys):
            self.assertNotIn(token.secret, said)

    def test_automatic_rotation(self) -> None:
        """An automatic rotation follows the expiry."""
        server = self.serve(options={"token_auto_rotate": True, "token_warning_min": 0})
        server.advance(3600)
        self.assertEqual(
            [(type(event), event.kind) for event in self.told(server, 1)],  # type: ignore[union-attr]
            [(KeyExpired, MANAGEMENT), (KeyRotated, MANAGEMENT), (KeyExpired, INFERENCE), (KeyRotated, INFERENCE)],
        )


class ObserverTests(ObservedCase):
    """Observers that misbehave, and those that act."""

    def test_raises(self) -> None:
        """One that raises, at once or later, is logged; the others are told, and the server serves."""

        class Broken(ServerObserver):
            def model_loaded(self, event: ModelLoaded) -> None:
                raise KeyError(event.model)

            async def worker_died(self, event: WorkerDied) -> None:
                raise KeyError(event.model)

        server = self.serve(Broken(), models={"m": {}})
        self.assertEqual(self.told(server), [ModelLoaded("m", "1.0")])
        server.provider.workers[0].kill()
        self.assertEqual(len(self.told(server)), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)
        self.assertEqual(server.request("GET", "/livez").status, 200)

    def test_acts(self) -> None:
        """One may stop the server: it is told when the server has finished what led to the event."""
        stopped: list[Deferred[None]] = []

        class Strict(ServerObserver):
            def worker_died(self, event: WorkerDied) -> None:
                stopped.append(server.server.stopService())

        server = self.serve(Strict(), models={"m": {}})
        server.provider.workers[0].kill()
        self.assertEqual(stopped, [])
        server.advance(0)
        server.advance(60)
        [end] = stopped
        self.successResultOf(end)

    def test_not_an_observer(self) -> None:
        """Another object is refused, and its class named."""
        with self.assertRaisesRegex(TypeError, "observers must be instances of ServerObserver, not of str"):
            Dependencies(observers=["x"])  # type: ignore[list-item]

    def test_base_class(self) -> None:
        """The base class ignores everything; so an observer overrides what it needs."""
        server = self.serve(ServerObserver(), models={"m": {}})
        self.assertEqual(len(self.told(server)), 1)

    def test_close(self) -> None:
        """The last events are delivered when the server is gone, and nothing stays behind."""
        clock, observer = Clock(), Recording()
        notify = Notifier([observer], clock)
        notify(ModelLoaded("m", "1.0"))
        notify.close()
        notify(ModelLoaded("m", "2.0"))
        self.assertEqual((observer.events, clock.getDelayedCalls()), ([ModelLoaded("m", "1.0")], []))

    def test_nobody(self) -> None:
        """Without observers nothing is scheduled."""
        clock = Clock()
        Notifier([], clock)(ModelLoaded("m", "1.0"))
        self.assertEqual(clock.getDelayedCalls(), [])
