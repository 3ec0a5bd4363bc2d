# SPDX-License-Identifier: Apache-2.0
"""Tests that guesses of named keys fill neither memory nor log."""

from __future__ import annotations

import gc
import sys
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys_case import KeyedServer
from twisted_serve.auth.audit import PEERS
from twisted_serve.auth.gate import Denied
from twisted_serve.auth.targets import parse_target
from twisted_serve.testing.server import Role

GUESSES = 100_000


class GuessingTests(SynchronousTestCase):
    """Different wrong secrets, well formed and not."""

    def setUp(self) -> None:
        self.server = KeyedServer(models={"m": {}})
        self.addCleanup(self.server.close)
        self.server.put("k", "inference")
        site: Any = self.server.site_of(Role.INFERENCE)
        self.gate, self.access = site.authorizer, site._take.__self__

    def guess(self, numbers: range, peers: int) -> None:
        target = parse_target(b"/predictions/m")
        for number in numbers:
            denied = self.gate.ask(b"POST", target, [b"Bearer tsk_%038d" % number])
            assert isinstance(denied, Denied)
            self.access.record(denied, f"192.0.2.{number % peers}", "POST", b"/predictions/m")

    def test_guesses(self) -> None:
        """A hundred thousand guesses from a few addresses leave nothing behind, and no line after the first few."""
        self.guess(range(1000), 4)
        gc.collect()
        before = sys.getallocatedblocks()
        with capturedLogs() as logged:
            self.guess(range(1000, GUESSES), 4)
        self.assertEqual(len(logged), 0)
        gc.collect()
        self.assertLess(sys.getallocatedblocks() - before, 500)

    def test_addresses(self) -> None:
        """With ever new addresses the memory is that of a number of addresses; no line has a guess."""
        with capturedLogs() as logged:
            self.guess(range(PEERS * 8), PEERS * 4)
        self.assertEqual(len(logged), PEERS * 8)
        self.assertEqual(len(self.access.audit_log._peers), PEERS)
        self.assertNotIn("tsk_", repr(logged))

    def test_unknown_path(self) -> None:
        """A guess in a path, too, is not logged."""
        secret = self.server.put("other", "metrics")
        with capturedLogs() as logged:
            self.server.connect().send(f"GET /{secret} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        self.assertNotIn(secret, repr(logged))
