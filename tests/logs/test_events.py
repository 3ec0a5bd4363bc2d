# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.logs`.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from datetime import timedelta, timezone
from io import StringIO
from random import Random
from typing import Any, cast

from hypothesis import given
from hypothesis.strategies import binary, characters, text
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_serve.auth.named.secrets import fresh_secret
from twisted_serve.logs import (
    ACCESS_LOG,
    LineObserver,
    console,
    log_access,
    log_model_output,
    printable,
    redact,
    redacting,
)

# 2024-05-30T21:46:03.625 in a zone two hours east.
MOMENT = 1717098363.6259
ZONE = timezone(timedelta(hours=2))
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} \[(INFO |WARN |ERROR|DEBUG)\] [^\n]+ - [^\n]*\n(\t[^\n]*\n)*")
KEY = "Zq3-_xW9aBcDeFgHiJkLmN"


def shown(**fields: Any) -> str:
    """Write one event, and return what was written."""
    written: list[str] = []
    LineObserver(written.append, ZONE)({"log_time": MOMENT, "log_level": LogLevel.info, "log_namespace": "n", **fields})
    return "".join(written)


def failure_of(error: BaseException) -> Failure:
    """Make a failure with a traceback."""
    try:
        raise error
    except BaseException:
        return Failure()


class LineObserverTests(SynchronousTestCase):
    """The console's lines."""

    def test_interface(self) -> None:
        """It is an observer of Twisted's log."""
        verifyObject(ILogObserver, LineObserver(print))

    def test_pattern(self) -> None:
        """A line has the predecessor's pattern."""
        self.assertEqual(
            shown(log_format="{what} done", what="all", log_namespace="twisted_serve.service"),
            "2024-05-30T21:46:03,625 [INFO ] main twisted_serve.service - all done\n",
        )

    def test_levels(self) -> None:
        """Names of levels are padded; there is nothing worse than an error."""
        levels = [shown(log_level=level, log_format="x")[24:31] for level in LogLevel.iterconstants()]
        self.assertEqual(levels, ["[DEBUG]", "[INFO ]", "[WARN ]", "[ERROR]", "[ERROR]"])

    def test_names(self) -> None:
        """An event may choose its logger and its thread."""
        self.assertIn(
            " [INFO ] W-9000-m_1.0-stdout MODEL_LOG - x\n",
            shown(log_format="x", logger_name="MODEL_LOG", thread_name="W-9000-m_1.0-stdout"),
        )

    def test_seconds(self) -> None:
        """Each event has its own time."""
        written: list[str] = []
        observer = LineObserver(written.append, timezone.utc)
        for moment in (0.001, 0.0025, 60.0):
            observer({"log_time": moment, "log_format": "x"})
        self.assertEqual([line[11:23] for line in written], ["00:00:00,001", "00:00:00,002", "00:01:00,000"])

    def test_traceback(self) -> None:
        """A traceback follows its line, indented, so that none of it looks like a line."""
        forged = "2024-05-30T21:46:03,625 [INFO ] main n - forged"
        lines = shown(log_format="broken", log_failure=failure_of(ValueError(f"a\n{forged}\x1b[2J")))
        self.assertTrue(LINE.fullmatch(lines), lines)
        self.assertIn(f"\t{forged}\\x1b[2J\n", lines)
        self.assertIn("\tTraceback", lines)

    def test_unformattable(self) -> None:
        """An event which cannot be formatted is told of, and breaks nothing."""
        self.assertTrue(LINE.fullmatch(shown(log_format="{missing}")))

    def test_injection(self) -> None:
        """Nobody forges a line, or commands a terminal, by what they send."""
        for attack in ("a\nb", "a\r\nb", "\x1b[31m", "\x9b31m", "\u2028", "\x85", "\x00", "\x08", "\u202e", "\ud800"):
            lines = shown(log_format="{name}", name=attack)
            self.assertNotIn(attack, lines)
            self.assertEqual(lines.count("\n"), 1)
            lines.encode()

    @given(text(alphabet=characters()), text(alphabet=characters()))
    def test_one_line(self, message: str, name: str) -> None:
        """Whatever an event says, it has one line, which can be written."""
        lines = shown(log_format="{message}", message=message, thread_name=name, logger_name=name)
        self.assertEqual(len(lines.splitlines()), 1)
        lines.encode()

    def test_printable(self) -> None:
        """Other text is left as it is."""
        self.assertEqual(printable("a\tb ä € 日本 \\n"), "a\tb ä € 日本 \\n")
        self.assertEqual(printable("a\nb\x1b\u2028"), "a\\nb\\x1b\\u2028")

    def test_unprintable(self) -> None:
        """Every control character, end of a line, turn of the direction and surrogate is escaped, wherever it is."""
        for number in range(sys.maxunicode + 1):
            character = chr(number)
            harmful = unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or unicodedata.bidirectional(
                character
            ) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
            harmful = (harmful and character != "\t") or character in "\u061c\u200e\u200f"
            self.assertEqual(character in printable(character), not harmful, hex(number))


class AccessTests(SynchronousTestCase):
    """The lines of requests."""

    def access(self, **said: Any) -> str:
        """Log one request, and return its line without the time."""
        written: list[str] = []
        log = Logger("n", observer=LineObserver(written.append))
        given = {
            "peer": ("127.0.0.1", 5000),
            "method": b"GET",
            "target": b"/ping?a=1",
            "version": b"HTTP/1.1",
            "status": 200,
            "elapsed": 0.0129,
        }
        log_access(log, **{**given, **said})
        return written[0].partition(" ")[2]

    def test_line(self) -> None:
        """A request's line is the predecessor's."""
        self.assertEqual(self.access(), '[INFO ] main ACCESS_LOG - /127.0.0.1:5000 "GET /ping?a=1 HTTP/1.1" 200 12\n')

    def test_ids(self) -> None:
        """The line ends with the id that the client gave, or that its answer has if that is an error."""
        for more, end in (
            ({"request_id": "i"}, " 200 12\n"),
            ({"request_id": "i", "named": True}, " 200 12 i\n"),
            ({"request_id": "i", "status": 399}, " 399 12\n"),
            ({"request_id": "i", "status": 400}, " 400 12 i\n"),
            ({"status": 503}, " 503 12\n"),
        ):
            self.assertTrue(self.access(**more).endswith(end), more)

    def test_unix(self) -> None:
        """A client on a UNIX socket has no address."""
        self.assertIn('ACCESS_LOG - 127.0.0.1 "GET', self.access(peer=None))

    def test_quotes(self) -> None:
        """Nobody ends the quotation, and with it forges a status."""
        line = self.access(target=b'/x" 200 1\n')
        self.assertIn('"GET /x\\" 200 1\\n HTTP/1.1" 200 12\n', line)

    @given(binary(), binary(), binary())
    def test_any_bytes(self, method: bytes, target: bytes, version: bytes) -> None:
        """Whatever was sent, there is one line for it, and its end is ours."""
        line = self.access(method=method, target=target, version=version)
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.endswith('" 200 12\n'))
        line.encode("ascii")


class ModelOutputTests(SynchronousTestCase):
    """The lines of what workers print."""

    def test_streams(self) -> None:
        """What goes to stderr is a warning."""
        written: list[str] = []
        log = Logger("n", observer=LineObserver(written.append))
        log_model_output(log, "W-9000-m_1.0", "stdout", "hello {x}")
        log_model_output(log, "W-9000-m_1.0", "stderr", "oh\x1b[0m")
        self.assertEqual(
            [line.partition(" ")[2] for line in written],
            [
                "[INFO ] W-9000-m_1.0-stdout MODEL_LOG - hello {x}\n",
                "[WARN ] W-9000-m_1.0-stderr MODEL_LOG - oh\\x1b[0m\n",
            ],
        )


class RedactingTests(SynchronousTestCase):
    """No live key gets into a log."""

    def setUp(self) -> None:
        self.seen: list[LogEvent] = []
        self.secrets = {KEY}
        self.observer = redacting(cast(ILogObserver, self.seen.append), lambda: self.secrets)

    def assert_redacted(self, event: LogEvent, key: str = KEY) -> None:
        """Assert that nothing of an event which has a key in it shows the key, however it is written."""
        self.observer({"log_time": MOMENT, "log_level": LogLevel.info, "log_namespace": "n", **event})
        clean = self.seen.pop()
        self.assertNotIn(key, repr(clean))
        written: list[str] = []
        LineObserver(written.append)(clean)
        self.assertNotIn(key, written[0])
        self.assertIn("<redacted>", written[0])

    def test_interface(self) -> None:
        """It is an observer of Twisted's log."""
        verifyObject(ILogObserver, self.observer)

    def test_everywhere(self) -> None:
        """A key is found in the format, a field, a nested value, a name and a traceback; a named one by its form."""
        for key in (KEY, fresh_secret(Random(7).randbytes)):
            self.assert_redacted({"log_format": f"key {key}"}, key)
            self.assert_redacted({"log_format": "{said}", "said": key}, key)
            self.assert_redacted({"log_format": "{said}", "said": {"key": [key]}}, key)
            self.assert_redacted({"log_format": "x", "thread_name": f"W-{key}"}, key)
            self.assert_redacted({"log_format": "x", "log_failure": failure_of(ValueError(f"Bearer {key}"))}, key)
            self.assert_redacted({"log_format": "{line}", "line": f"GET /?key={key}", "logger_name": ACCESS_LOG}, key)

    def test_others_untouched(self) -> None:
        """An event without a key goes on as it is."""
        event = {"log_time": MOMENT, "log_format": "{said}", "said": "fine"}
        self.observer(event)
        self.assertIs(self.seen[0], event)

    def test_keys_of_the_moment(self) -> None:
        """A key is looked for from the moment that it lives."""
        self.secrets.clear()
        event: LogEvent = {"log_time": MOMENT, "log_format": "{said}", "said": KEY}
        self.observer(event)
        self.assertIs(self.seen.pop(), event)
        self.secrets.add(KEY)
        self.assert_redacted(event)

    def test_no_key(self) -> None:
        """An empty key is none."""
        self.assertEqual(redact("abc", [""]), "abc")
        self.secrets = {""}
        self.observer({"log_format": "x"})
        self.assertEqual(self.seen, [{"log_format": "x"}])


class ConsoleTests(SynchronousTestCase):
    """What an operator sees."""

    def test_notable(self) -> None:
        """Our information and everybody's warnings; not what Twisted does in detail."""
        stream = StringIO()
        publisher = LogPublisher(console(stream, lambda: [KEY], ZONE))
        Logger("twisted_serve.service", observer=publisher).info("ours {key}", key=KEY)
        Logger("twisted_serve.service", observer=publisher).debug("detail")
        Logger("twisted.internet.protocol", observer=publisher).info("Starting factory")
        Logger("twisted.web", observer=publisher).warn("theirs")
        Logger("log_legacy", observer=publisher).info("Site starting")
        self.assertEqual(
            [line.partition(" - ")[2] for line in stream.getvalue().splitlines()], ["ours <redacted>", "theirs"]
        )
