# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.logs.host_log`.
"""

from __future__ import annotations

import re
from io import StringIO

from hypothesis import given
from hypothesis.strategies import text
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, jsonFileLogObserver, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_serve.logs import log_access, log_lines, log_model_output
from twisted_serve.logs.host_log import HostLog

KEY = "Zq3-_xW9aBcDeFgHiJkLmN"

WORKER = "W-9000-m_1.0"


class HostLogTests(SynchronousTestCase):
    """Our lines in the log of another program, as Twisted writes it."""

    def setUp(self) -> None:
        self.observer = HostLog(lambda: [KEY])
        self.out = StringIO()
        self.json = StringIO()
        publisher = LogPublisher(self.observer, textFileLogObserver(self.out), jsonFileLogObserver(self.json))
        self.log = Logger("twisted_serve.workers", observer=publisher)

    def lines(self) -> list[str]:
        """Return the lines without their times, and check that no key is in them, or in the same log in JSON."""
        self.assertNotIn(KEY, self.out.getvalue() + self.json.getvalue())
        return [re.sub(r"^\S+ ", "", line) for line in self.out.getvalue().splitlines()]

    def test_interface(self) -> None:
        """It is an observer of Twisted's log."""
        verifyObject(ILogObserver, self.observer)

    def test_labels(self) -> None:
        """What a handler prints is labelled with its worker, and other lines of a logger with a name with that name."""
        log_model_output(self.log, WORKER, "stdout", "hello")
        log_model_output(self.log, WORKER, "stderr", "alas")
        log_access(self.log, peer=("::1", 1), method=b"GET", target=b"/", version=b"HTTP/1.1", status=200, elapsed=0)
        log_lines(self.log, "TS_METRICS", ["a", "b"])
        self.log.info("{worker} ready", worker=WORKER, thread_name=WORKER)
        self.log.info("as ever")
        self.assertEqual(
            self.lines(),
            [
                f"[{WORKER}-stdout MODEL_LOG#info] hello",
                f"[{WORKER}-stderr MODEL_LOG#warn] alas",
                '[ACCESS_LOG#info] /::1:1 "GET / HTTP/1.1" 200 0',
                "[TS_METRICS#info] a",
                "\tb",
                f"[{WORKER} twisted_serve.workers#info] {WORKER} ready",
                "[twisted_serve.workers#info] as ever",
            ],
        )

    def test_secrets(self) -> None:
        """A key is blacked out wherever it is: in a line, a name, a traceback, in other programs' events."""
        log_model_output(self.log, f"W-9000-{KEY}_1.0", "stdout", f"the key is {KEY}")
        log_lines(self.log, "TS_METRICS", ["a", f"b {KEY}"])
        try:
            raise ValueError(KEY)
        except ValueError:
            self.log.failure("in {place}", place=KEY)
        self.log.info("{key}", key=KEY, other=KEY, log_system="theirs")
        lines = self.lines()
        self.assertEqual(lines[0], "[W-9000-<redacted>_1.0-stdout MODEL_LOG#info] the key is <redacted>")
        self.assertIn("\tb <redacted>", lines)
        self.assertIn("\tbuiltins.ValueError: <redacted>", lines)
        self.assertEqual(lines[-1], "[twisted_serve.workers#info] <redacted>")

    def test_forged(self) -> None:
        """No output forges a line, or controls a terminal."""
        log_model_output(self.log, "W\n", "stdout", "\x1b[31m\r2026-01-01 [-] forged")
        log_lines(self.log, "TS_METRICS", ["a", "b\x1b"])
        self.log.info("{text}", text="x\ny\u2028z")
        self.log.failure("lost", Failure(ValueError("\x1b[2J")))
        self.assertEqual(
            self.lines(),
            [
                r"[W\n-stdout MODEL_LOG#info] \x1b[31m\r2026-01-01 [-] forged",
                "[TS_METRICS#info] a",
                r"	b\x1b",
                r"[twisted_serve.workers#info] x\ny\u2028z",
                "[twisted_serve.workers#critical] lost",
                "\tTraceback (most recent call last):",
                r"	Failure: builtins.ValueError: \x1b[2J",
            ],
        )

    @given(text(min_size=1))
    def test_any(self, said: str) -> None:
        """Whatever a handler prints is one line; Twisted leaves out an empty one."""
        self.out.truncate(0)
        self.out.seek(0)
        log_model_output(self.log, WORKER, "stdout", said)
        self.assertEqual(len(self.lines()), 1)

    def test_untouched(self) -> None:
        """An event that needs no change keeps its fields, its failure among them."""
        failure = Failure(ValueError("x"))
        event = {"log_time": 0.0, "log_level": LogLevel.critical, "log_format": "{a}", "a": 1, "log_failure": failure}
        before = dict(event)
        self.observer(event)
        self.assertEqual(event, before)
