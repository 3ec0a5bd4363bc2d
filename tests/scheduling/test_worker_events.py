# SPDX-License-Identifier: Apache-2.0
"""Tests for the log lines on workers that scripts and TorchServe's own tests wait for: their text and their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import capturedLogs, formatEvent

from tests.scheduling.continuous_case import Scene
from tests.scheduling.pool_bench import PoolTestCase, job
from tests.workers.local_case import LocalTestCase
from twisted_serve.errors import WorkerFailed

STARTS = (
    "Auto recovery",
    "Retry worker",
    "Number or consecutive",
    "Backend worker error",
    "org.pytorch",
    "Connection to client",
)


@contextmanager
def lines() -> Iterator[list[str]]:
    """Collect the lines of interest."""
    found: list[str] = []
    with capturedLogs() as events:
        yield found
    said = map(formatEvent, events)
    found += [line for line in said if line.startswith(STARTS) or " Worker disconnected. " in line]


class RecoveryTests(PoolTestCase):
    """A worker that is lost, and its successors."""

    def test_recovered(self) -> None:
        """The log has the loss of a worker, its time, the time of the retry, and the recovery."""
        bench = self.running()
        with lines() as found:
            bench.worker.kill()
            bench.clock.advance(1.0)
        self.assertEqual(
            [
                "Retry worker: 9000 in 1 seconds. exited",
                "9000 Worker disconnected. WORKER_MODEL_LOADED",
                "Auto recovery start timestamp: 1767225600000",
                "Auto recovery succeeded, reset recoveryStartTS",
            ],
            found,
        )
        self.assertEqual(["READY"], bench.words())

    def test_failed_again(self) -> None:
        """A successor that fails to load is logged as a failed recovery; one that loads ends the recovery."""
        bench = self.running()
        bench.provider.load_error = WorkerFailed(500, "no such thing")
        with lines() as found:
            bench.worker.kill()
            bench.clock.advance(1.0)
        self.assertEqual(1, found.count("Auto recovery failed again"))
        self.assertIn("9000 Worker disconnected. WORKER_STARTED", found)
        bench.provider.load_error = None
        with lines() as found:
            bench.clock.advance(30.0)
        self.assertEqual(["Auto recovery succeeded, reset recoveryStartTS"], found)

    def test_reason_is_printed(self) -> None:
        """A reason that is in a handler's logged traceback is not repeated with the retry; other reasons are."""
        for printed, said in ((True, ""), (False, "AssertionError")):
            bench = self.running()
            bench.provider.load_error = WorkerFailed(500, "AssertionError", printed=printed)
            with lines() as found:
                bench.worker.kill()
                bench.clock.advance(1.0)
                bench.provider.workers[-1].kill()
            retries = [line for line in found if line.startswith("Retry")]
            self.assertEqual(
                ["Retry worker: 9000 in 1 seconds. exited", f"Retry worker: 9000 in 1 seconds. {said}"], retries
            )

    def test_scaled_down(self) -> None:
        """A worker that is stopped is not recovered."""
        bench = self.running()
        with lines() as found:
            self.successResultOf(bench.pool.scale(0, 0))
        self.assertEqual(["9000 Worker disconnected. WORKER_SCALED_DOWN"], found)


class UnansweredTests(PoolTestCase):
    """Batches that are not answered in time."""

    def test_numbers(self) -> None:
        """They are counted until a batch is answered; each is logged with TorchServe's exception."""
        bench = self.running(holding=True, response_timeout=5, retry_on_worker_death=False)
        numbers: list[str] = []
        for answered in (False, False, True, False):
            asked = bench.pool.submit(job(body=b"%d" % len(numbers)))
            with lines() as found:
                if answered:
                    bench.worker.answer()
                    self.successResultOf(asked)
                else:
                    bench.clock.advance(5.0)
                    self.failureResultOf(asked)
            numbers += [line for line in found if line.startswith("Number")]
            if not answered:
                i = found.index("Backend worker error")
                self.assertEqual(
                    "org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time",
                    found[i + 1],
                )
            bench.clock.advance(60.0)
        words = "Number or consecutive unsuccessful inference"
        self.assertEqual([f"{words} 1", f"{words} 2", f"{words} 1"], numbers)


class LoadingTests(LocalTestCase):
    """A worker that does not load in time."""

    def test_too_slow(self) -> None:
        """It is logged with the same exception."""
        worker, child = self.start(startup_timeout=3.0)
        with lines() as found:
            self.reactor.advance(3.0)
        self.failed(worker.loaded)
        self.assertEqual(
            [
                "Backend worker error",
                "org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time",
            ],
            found,
        )
        child.die(signal=15)


class ContinuousTests(PoolTestCase):
    """A client that disconnects while its response is generated."""

    def test_client_gone(self) -> None:
        """The log has the id of the request that is not continued."""
        scene = Scene(workers=1)
        self.addCleanup(scene.pool.retire, 0.0)
        client = scene.ask(5)
        scene.step()
        client.answer.cancel()
        with lines() as found:
            scene.step()
        self.assertEqual(["Connection to client got closed; Removing job: r1"], found)
