# SPDX-License-Identifier: Apache-2.0
"""Hold the number of calls of our own Python functions on the way of a warm prediction through the front."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.logs import shortcut
from twisted_serve.logs.levels import Levels
from twisted_serve.logs.router import Router
from twisted_serve.testing.server import MemoryServer

#: Raise it only for a feature that is worth its time on every request, and say here for which.
#: 196 was counted by hand at the first release, over a socket; this is what is counted in memory, with the fake worker.
#: Those of the fast lane are in one more function for requests whose connections are in fronts.
MOST_CALLS: Final = 93
#: Of a request that the fast lane does not take.
MOST_CALLS_BESIDE: Final = 170

_OURS: Final = str(Path(twisted_serve.__file__).parent)
# Not in the front of a real server.
_TESTING: Final = str(Path(_OURS) / "testing")


def calls_of(server: MemoryServer, sent: bytes) -> Counter[str]:
    """Send a request on a warm connection; return how often each of our functions was called for the last one."""
    connection = server.connect()
    for _ in range(10):
        connection.send(sent)
    before = len(connection.received)
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(_OURS) and not path.startswith(_TESTING):
            calls[f"{path.removeprefix(_OURS)}:{frame.f_code.co_name}"] += 1

    other = sys.getprofile()
    sys.setprofile(count)
    try:
        connection.send(sent)
    finally:
        sys.setprofile(other)
    answer = connection.received[before:]
    if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"\r\n\r\nx"):
        raise AssertionError(f"no prediction was made: {answer!r}")
    return calls


class HopsTests(SynchronousTestCase):
    """A request with a key, for a model with one worker that is idle, on a connection that has had others."""

    fast_lane = True
    most = MOST_CALLS

    def setUp(self) -> None:
        self.server = MemoryServer({"fast_lane": self.fast_lane}, models={"m": {}})
        self.addCleanup(self.server.close)
        # As in the server's own process, where lines are rendered later, of many requests at once.
        straight = shortcut(Router([], Levels(), lambda: (), self.server.clock.callLater).add_request)
        straight.__enter__()
        self.addCleanup(straight.__exit__, None, None, None)
        key = self.server.key(TokenKind.INFERENCE)
        head = f"POST /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\nContent-Length: 1\r\n\r\n"
        self.sent = head.encode() + b"x"

    def test_calls(self) -> None:
        """No more calls than before."""
        calls = calls_of(self.server, self.sent)
        most = "\n".join(f"{n:4} {name}" for name, n in calls.most_common())
        self.assertLessEqual(calls.total(), self.most, f"\n{most}")

    def test_calls_are_counted(self) -> None:
        """The count is the same each time, and near to what is allowed: the bound has to follow when it falls."""
        counts = {calls_of(self.server, self.sent).total() for _ in range(5)}
        self.assertEqual(len(counts), 1)
        self.assertGreater(counts.pop(), self.most * 0.9)


class BesideTests(HopsTests):
    """The same without the fast lane."""

    fast_lane = False
    most = MOST_CALLS_BESIDE
