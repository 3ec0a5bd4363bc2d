# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.planes.management`: what happens at once, and while the server stops."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.archives.deep_trees import deepen
from tests.planes.plane_case import PlaneTestCase
from twisted_serve.errors import ServiceUnavailable, WorkerFailed
from twisted_serve.interfaces import IWorker, Placement, WorkerSpec
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.wire.messages import Item, Job


class Reluctant(FakeProvider):
    """Its workers do not stop when they are told to."""

    def start(self, spec: WorkerSpec, placement: Placement) -> IWorker:
        worker = super().start(spec, placement)
        worker.stop = lambda grace: Deferred()  # type: ignore[method-assign]
        return worker


class RaceTests(PlaneTestCase):
    """Tests for changes which meet."""

    def test_registered_again_before_it_is_gone(self) -> None:
        """A version may come back while its predecessor still answers: each has its own files, and loses only them."""
        self.archive()
        self.successResultOf(self.register())
        old = self.model_dir()
        worker = self.provider.workers[0]
        worker.holding = True
        answer = self.catalogue.pool_of(self.catalogue.resolve("m", None)).submit(Job("r", {}, []))
        going = self.unregister()
        self.assertNoResult(going)
        self.archive(description="another")
        self.successResultOf(self.register())
        new = self.model_dir()
        worker.answer([Item("r", 200, "", {}, b"")])
        self.successResultOf(answer)
        self.successResultOf(going)
        self.assertEqual((old.exists(), new.exists()), (False, True))
        self.successResultOf(self.unregister())
        self.assertEqual(self.unpacked(), [])

    def test_deep_directories(self) -> None:
        """What a handler has made in its model's directory goes with it, however deep it is."""
        self.archive()
        self.successResultOf(self.register())
        deepen(self.model_dir(), 3000)
        self.assertEqual(self.successResultOf(self.unregister()).status, 200)
        self.assertEqual(self.unpacked(), [])

    def test_unregistered_while_loading(self) -> None:
        """Who waits for the workers of a version that somebody unregisters is told that they did not start."""
        self.archive()
        self.provider.load_delay = None
        coming = self.register()
        self.successResultOf(self.unregister())
        self.failureResultOf(coming, WorkerFailed)
        self.assertEqual((list(self.catalogue), self.unpacked()), ([], []))

    def test_another_in_its_place(self) -> None:
        """A registration that fails because it was unregistered leaves alone the one which has come after it."""
        self.archive()
        provider = self.provider
        self.provider = Reluctant(self.clock, load_delay=None)
        coming = self.register()
        [first] = self.provider.workers
        going = self.unregister()
        self.assertNoResult(going)
        self.provider = provider
        self.successResultOf(self.register())
        first.kill()
        self.failureResultOf(coming, WorkerFailed)
        self.successResultOf(going)
        self.assertEqual(self.catalogue.resolve("m", None).model_dir, self.unpacked()[0])
        self.assertEqual(len(self.unpacked()), 1)

    def test_two_at_once(self) -> None:
        """Of two registrations of one version which are opened at once, one is refused and leaves nothing."""
        self.archive()
        self.threads.holding = True
        both = [self.register(), self.register()]
        self.threads.work()
        results: list[Any] = []
        for registration in both:
            registration.addBoth(results.append)
        self.assertEqual(sorted(type(result).__name__ for result in results), ["Failure", "Outcome"])
        self.assertEqual(len(self.unpacked()), 1)


class StoppingTests(PlaneTestCase):
    """Tests for what is under way when the server stops."""

    def stop(self) -> Deferred[None]:
        self.catalogue.stopping = True
        return Deferred.fromCoroutine(self.plane.retire_all(0.0))

    def test_while_opening(self) -> None:
        """What is being opened is not waited for, and is not registered when it has been opened."""
        self.archive()
        for steps in range(2):
            self.catalogue.stopping = False
            self.threads.holding = True
            coming = self.register()
            self.threads.work(steps)
            self.successResultOf(self.stop())
            self.threads.work()
            self.failureResultOf(coming, ServiceUnavailable)
            self.assertEqual((self.provider.workers, list(self.catalogue), self.unpacked()), ([], [], []))

    def test_afterwards(self) -> None:
        """Nothing is registered on a server that stops, and nothing stays of the attempt."""
        self.archive()
        self.successResultOf(self.stop())
        self.failureResultOf(self.register(), ServiceUnavailable)
        self.assertEqual((self.provider.workers, self.unpacked()), ([], []))

    def test_start_up(self) -> None:
        """A start-up model that is being opened is given up, as one that cannot be loaded."""
        self.archive()
        self.threads.holding = True
        loading = Deferred.fromCoroutine(self.plane.load_at_startup(None, "m.mar"))
        self.successResultOf(self.stop())
        self.assertIsNone(self.successResultOf(self.successResultOf(loading)))

    def test_workers(self) -> None:
        """All workers end."""
        self.archive()
        self.archive("n.mar", modelName="n")
        self.successResultOf(self.register())
        self.successResultOf(self.register("n.mar"))
        self.successResultOf(self.stop())
        self.assertEqual(self.provider.alive, [])
