# SPDX-License-Identifier: Apache-2.0
"""What the tests of the inference routes share."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.fakes import FakeWorker
from twisted_serve.testing.server import Answer, MemoryConnection, MemoryServer
from twisted_serve.wire.messages import Item, Job


class InferenceTestCase(SynchronousTestCase):
    """A server whose workers say what the test wants."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.jobs: list[Job] = []
        self.error: Exception | None = None
        self.server = MemoryServer(self.options, respond=self.respond, models={"m": {}})
        self.addCleanup(self.server.close)
        self.item: tuple[int, str, dict[str, str], bytes] = (200, "", {}, b"answer")

    def respond(self, jobs: list[Job]) -> list[Item] | Exception:
        self.jobs += jobs
        if self.error is not None:
            return self.error
        return [Item(job.request_id, *self.item) for job in jobs]

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.request(method, path, self.server.key(TokenKind.INFERENCE), named, body)


class HeldTestCase(InferenceTestCase):
    """A server whose worker keeps what it is given."""

    def held(self, version: str, more: str = "") -> tuple[MemoryConnection, FakeWorker, Job]:
        """Have a worker hold a request, and return the client's connection, the worker and the job."""
        [worker] = self.server.provider.workers
        worker.holding = True
        connection = self.server.connect()
        key = self.server.key(TokenKind.INFERENCE)
        connection.send(
            f"GET /predictions/m {version}\r\nHost: h\r\n{more}Authorization: Bearer {key}\r\n\r\n".encode()
        )
        [[job]] = worker.batches
        return connection, worker, job
