# SPDX-License-Identifier: Apache-2.0
"""What the tests of an application's authorizer share: a server in memory, and answers that come later."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.web.authorizers import Saying
from twisted_serve.interfaces import AccessRequest
from twisted_serve.testing.server import MemoryConnection, MemoryServer

CREDENTIALS = b64encode(b"alice:correct horse").decode()
BASIC = f"Basic {CREDENTIALS}"


class AuthorizerCase(SynchronousTestCase):
    """A server with an authorizer that answers when the test says so, unless it is told to answer at once."""

    def serve(self, authorizer: Saying, **more: Any) -> MemoryServer:
        server = MemoryServer(
            more.pop("options", None), models={"m": {}}, dependencies={"authorizer": authorizer}, **more
        )
        self.addCleanup(server.close)
        return server

    def setUp(self) -> None:
        self.cancelled = 0
        self.answers: list[Deferred[Any]] = []
        self.slow = Saying(self.later)
        self.lines: list[str] = []

        @implementer(ILogObserver)
        def heard(event: LogEvent) -> None:
            self.lines.append(formatEvent(event))
            if "log_failure" in event:
                self.lines.append(event["log_failure"].getTraceback())

        globalLogPublisher.addObserver(heard)
        self.addCleanup(globalLogPublisher.removeObserver, heard)

    def later(self, _asked: AccessRequest) -> Deferred[Any]:
        def cancel(_answer: object) -> None:
            self.cancelled += 1

        answer: Deferred[Any] = Deferred(cancel)
        self.answers.append(answer)
        return answer

    def post(self, body: bytes, headers: bytes = b"", length: int | None = None) -> bytes:
        sent = len(body) if length is None else length
        return b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n%s" % (headers, sent, body)

    def statuses(self, connection: MemoryConnection) -> list[int]:
        return [int(piece.split(b" ", 1)[0]) for piece in connection.received.split(b"HTTP/1.1 ")[1:]]

    def jobs(self, server: MemoryServer) -> list[dict[str, str]]:
        """Return the headers of all requests that workers got."""
        return [dict(job.headers) for worker in server.provider.workers for batch in worker.batches for job in batch]
