# SPDX-License-Identifier: Apache-2.0
"""Tests for pools with continuous batching: the requests in each batch, and the responses to clients."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.scheduling.continuous_case import Scene
from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.errors import ServiceUnavailable, WorkerDied, WorkerFailed
from twisted_serve.wire.codec import UnsendableError
from twisted_serve.wire.messages import Job, Part


class ContinuousTests(SynchronousTestCase):
    """What clients and handlers see."""

    def make(self, *arguments: Any, **settings: Any) -> Scene:
        scene = Scene(*arguments, **settings)
        self.addCleanup(scene.pool.retire, 0.0)
        return scene

    def test_join_and_leave(self) -> None:
        """Requests join at the next call, up to ``batchSize``, and leave when they are finished; each gets its text."""
        scene = self.make(batch_size=2)
        long, short = scene.ask(4), scene.ask(2)
        self.assertEqual(scene.running(), ["r1"])
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r2"])
        third = scene.ask(1)
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r2"])
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r3"])
        self.assertEqual((short.pieces, short.text), ([b"a"], b"ab"))
        scene.step()
        self.assertEqual(scene.running(), [])
        self.assertEqual((long.pieces, long.text), ([b"a", b"b", b"c"], b"abcd"))
        self.assertEqual((third.pieces, third.text), ([], b"a"))
        status = scene.pool.status()
        self.assertEqual((status.running, status.pending), (0, 0))

    def test_observed(self) -> None:
        """The observer gets the size of each batch, and for each request its waiting time and the time of its calls."""
        scene = self.make(batch_size=2)
        scene.ask(3)
        scene.ask(1)
        for _ in range(3):
            scene.clock.advance(1.0)
            scene.step()
        self.assertEqual(scene.observer.sizes, [1, 2, 1])
        self.assertEqual(scene.observer.finished, [(1.0, 1.0), (0.0, 3.0)])

    def test_inputs_once(self) -> None:
        """A request's inputs are sent with its first call only, its headers with each."""
        scene = self.make()
        scene.ask(2, {"x": "y"})
        scene.step()
        scene.step()
        [[first], [second]] = scene.provider.batches
        self.assertEqual((first.parts, first.headers), ([Part("body", "", b"2")], {"x": "y"}))
        self.assertEqual((second.parts, second.headers), ([], {"x": "y"}))

    def test_client_gone(self) -> None:
        """A request whose client has disconnected is not in the next call; when it was the last one, the calls end."""
        scene = self.make(batch_size=2)
        first, second = scene.ask(9), scene.ask(9)
        scene.step()
        first.answer.cancel()
        self.assertEqual(scene.provider.workers[0].cancelled, ["r1"])
        scene.step()
        self.assertEqual(scene.running(), ["r2"])
        second.answer.cancel()
        scene.step()
        self.assertEqual(scene.running(), [])
        self.assertEqual([len(client.answers) for client in (first, second)], [1, 1])
        third = scene.ask(1)
        scene.step()
        self.assertEqual(third.text, b"a")

    def test_gone_while_waiting(self) -> None:
        """A client that disconnects before its request has joined leaves nothing behind."""
        scene = self.make(batch_size=1)
        scene.ask(2)
        waiting = scene.ask(2)
        waiting.answer.cancel()
        scene.step()
        scene.step()
        self.assertEqual(scene.running(), [])
        self.assertIsInstance(waiting.answers[0], CancelledError)

    def test_failure(self) -> None:
        """A call that fails fails all requests in it once; none is retried, and queued requests are next."""
        scene = self.make(batch_size=2)
        clients = [scene.ask(9), scene.ask(9), scene.ask(1)]
        scene.step()
        [worker] = scene.provider.workers
        worker.answer(WorkerFailed(503, "Prediction failed"))
        for client in clients[:2]:
            [error] = client.answers
            self.assertEqual((error.status, error.message), (503, "Prediction failed"))
        self.assertEqual(scene.running(), ["r3"])
        scene.step()
        self.assertEqual(clients[2].text, b"a")

    def test_worker_dies(self) -> None:
        """All requests at a worker fail when it dies, even those without a chunk so far; other workers continue."""
        scene = self.make(workers=2, batch_size=2)
        clients = [scene.ask(3) for _ in range(4)]
        scene.step(0)
        scene.step(1)
        self.assertEqual([len(scene.running(number)) for number in (0, 1)], [2, 2])
        dying = set(scene.running(0))
        scene.provider.alive[0].kill()
        for client in clients:
            if client.request_id in dying:
                self.assertIsInstance(client.answers[0], WorkerDied)
        for _ in range(3):
            scene.step(0)
        self.assertEqual(sorted(c.text for c in clients if c.request_id not in dying), [b"abc", b"abc"])

    def test_response_timeout(self) -> None:
        """``responseTimeout`` is for each call: a long answer may take longer, a call may not."""
        scene = self.make(response_timeout=10)
        client = scene.ask(9)
        for _ in range(3):
            scene.clock.advance(9.0)
            scene.step()
        self.assertEqual(client.pieces, [b"a", b"b", b"c"])
        scene.clock.advance(10.0)
        self.assertIsInstance(client.answers[0], WorkerDied)

    def test_slow_client(self) -> None:
        """A client that reads slowly holds up neither the others nor ``responseTimeout``."""
        scene = self.make(batch_size=2, response_timeout=10)
        slow = scene.ask(9)
        scene.step()
        assert slow.producer is not None
        slow.producer.pauseProducing()
        quick = scene.ask(2)
        for _ in range(3):
            scene.step()
        self.assertEqual(quick.text, b"ab")
        self.assertEqual(scene.provider.workers[0].paused, set())
        scene.clock.advance(10.0)
        self.assertIsInstance(slow.answers[0], WorkerDied)

    def test_describe(self) -> None:
        """A description is in a batch by itself: after the running batch, before later requests, and once."""
        scene = self.make(batch_size=3)
        scene.ask(2)
        scene.pool.submit(Job("d", {"describe": "True"}, [Part("body", "", b"1")]))
        scene.ask(1)
        scene.step()
        self.assertEqual(scene.running(), ["r1"])
        scene.step()
        self.assertEqual(scene.running(), ["d"])
        scene.step()
        self.assertEqual(scene.running(), ["r2"])

    def test_stopped_worker(self) -> None:
        """A worker that is stopped finishes its requests, takes no new ones, and then ends."""
        scene = self.make(batch_size=2)
        client = scene.ask(4)
        scene.step()
        [worker] = scene.provider.workers
        gone = scene.pool.retire(30.0)
        late = scene.ask(1)
        self.assertIsInstance(late.answers[0], ServiceUnavailable)
        for text in (b"ab", b"abc", b"abcd"):
            self.assertTrue(worker.alive)
            worker.answer(scene.handlers[worker](worker.batches[-1]))
            self.assertEqual(client.text, text)
        self.assertFalse(worker.alive)
        self.successResultOf(gone)

    def test_none_join_a_stopping_worker(self) -> None:
        """Queued requests join a worker that stays and not one that is stopping, whichever answers first."""
        scene = self.make(workers=2, batch_size=2)
        clients = [scene.ask(3), scene.ask(3), scene.ask(1)]
        scene.pool.scale(1, 1)
        staying, leaving = scene.provider.alive
        before = leaving.batches[-1][0].request_id
        scene.step(1)
        self.assertEqual(scene.running(1), [before])
        scene.step(0)
        self.assertEqual(scene.running(0)[1:], ["r3"])
        for _ in range(2):
            scene.step(1)
            scene.step(0)
        self.assertEqual([client.text for client in clients], [b"abc", b"abc", b"a"])
        self.assertEqual((staying.alive, leaving.alive), (True, False))

    def test_grace(self) -> None:
        """Requests that are unfinished when the grace is over fail."""
        scene = self.make()
        client = scene.ask(9)
        scene.step()
        gone = scene.pool.retire(5.0)
        [worker] = scene.provider.workers
        worker.answer(scene.handlers[worker](worker.batches[-1]))
        self.assertEqual(client.answers, [])
        scene.clock.advance(5.0)
        self.assertIsInstance(client.answers[0], WorkerDied)
        self.successResultOf(gone)

    def test_at_once(self) -> None:
        """Chunks keep their order even if a worker answers before ``run`` returns."""
        scene = self.make(holding=False, batch_size=2)
        client = scene.ask(20)
        self.assertEqual(client.text, b"abcdefghijklmnopqrst")
        self.assertEqual(len(client.pieces), 19)

    def test_more_without_leave(self) -> None:
        """If a model does not batch continuously, ``more`` from its worker is ignored: its response is final."""
        scene = self.make(continuous=False)
        client = scene.ask(3)
        scene.step()
        self.assertEqual((scene.running(), client.text), ([], b"a"))

    def test_adaptive(self) -> None:
        """Where late requests join, there is nothing to learn or to wait for."""
        scene = self.make(batch_size=2, batch_policy=ClosePolicy.ADAPTIVE, max_batch_delay=1000)
        client = scene.ask(2)
        scene.step()
        scene.step()
        self.assertEqual(client.text, b"ab")

    def test_window(self) -> None:
        """Under ``window`` a batch waits for more requests when it begins, and not when it continues."""
        scene = self.make(batch_size=3, batch_policy=ClosePolicy.WINDOW, max_batch_delay=1000)
        scene.ask(5)
        self.assertEqual(scene.running(), [])
        scene.clock.advance(1.0)
        self.assertEqual(scene.running(), ["r1"])
        scene.ask(5)
        scene.step()
        self.assertEqual(scene.running(), ["r1", "r2"])

    def test_worker_lost_unseen(self) -> None:
        """If a worker is found lost between two calls, its requests fail and queued requests are kept."""
        scene = self.make(batch_size=2)
        going = scene.ask(9)
        waiting = scene.ask(1)
        [worker] = scene.provider.workers

        def gone(*_arguments: object) -> Deferred[Any]:
            raise WorkerDied

        self.patch(worker, "run", gone)
        scene.step()
        self.assertIsInstance(going.answers[-1], WorkerDied)
        self.assertEqual(waiting.answers, [])
        worker.kill()
        scene.clock.advance(5.0)
        scene.step()
        self.assertEqual(waiting.text, b"a")

    def test_unsendable(self) -> None:
        """If a call cannot be sent, all requests in it fail."""
        scene = self.make(batch_size=2)
        clients = [scene.ask(9), scene.ask(1)]
        [worker] = scene.provider.workers

        def unsendable(*_arguments: object) -> Deferred[Any]:
            patched.restore()
            raise UnsendableError("too long")

        patched = self.patch(worker, "run", unsendable)
        scene.step()
        for client in clients:
            self.assertIsInstance(client.answers[-1], WorkerFailed)
        self.flushLoggedErrors(UnsendableError)
        again = scene.ask(1)
        scene.step()
        self.assertEqual(again.text, b"a")
