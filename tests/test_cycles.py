# SPDX-License-Identifier: Apache-2.0
"""Hold that a prediction leaves no cycle of references, which would stay in memory until garbage is collected."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer

REQUESTS = 5


def left_by(server: MemoryServer, sent: str) -> list[str]:
    """Return the types of our objects that only the garbage collector finds after some requests."""
    connection = server.connect()
    data = sent.format(key=server.key(TokenKind.INFERENCE)).encode()
    connection.send(data)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(REQUESTS):
            connection.send(data)
        gc.collect()
    finally:
        gc.set_debug(0)
        gc.enable()
        found = [type(each) for each in gc.garbage]
        gc.garbage.clear()
    return [each.__qualname__ for each in found if each.__module__.startswith("twisted_serve")]


class CycleTests(SynchronousTestCase):
    """Requests that are answered, each with a body."""

    def check(self, path: str = "/predictions/m", headers: str = "", **options: object) -> None:
        """Assert that requests leave nothing."""
        server = MemoryServer(options, models={"m": {}})
        self.addCleanup(server.close)
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {{key}}\r\nContent-Length: 3\r\n{headers}\r\n"
        self.assertEqual([], left_by(server, f"{head}x=1"))

    def test_usual(self) -> None:
        """Usual predictions."""
        self.check()

    def test_others(self) -> None:
        """Predictions beside the fast lane."""
        self.check(fast_lane=False)
        self.check(headers="Content-Type: application/x-www-form-urlencoded\r\n")

    def test_refused(self) -> None:
        """Predictions that are refused."""
        self.check("/predictions/nothing")
