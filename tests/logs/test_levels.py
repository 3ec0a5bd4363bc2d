# SPDX-License-Identifier: Apache-2.0
"""Tests for levels, layouts and the ways of the log."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.values import levels_by_name
from twisted_serve.logs import redacting
from twisted_serve.logs.entries import entry_of
from twisted_serve.logs.events import READY
from twisted_serve.logs.layouts import json_layout, long_layout
from twisted_serve.logs.levels import LEVELS, Levels
from twisted_serve.logs.router import GATHERING, Destination, Gathering, Router, to_stream


def event(**fields: Any) -> LogEvent:
    """Make an event."""
    return {"log_time": 1717098363.6259, "log_level": LogLevel.info, "log_namespace": "n", "log_format": "x", **fields}


class LevelTests(SynchronousTestCase):
    """What is worth a line."""

    def test_by_name(self) -> None:
        """A logger has the level of the longest name that it is below of; nobody else's."""
        levels = Levels("warn", {"a": "debug", "a.b": "off", "twisted": "info"})
        for logger, level in {
            "a": "debug",
            "a.c": "debug",
            "a.b.c": "off",
            "ab": "warn",
            "twisted.web": "info",
        }.items():
            self.assertEqual(levels.level_of(logger), level)
            for each in LogLevel.iterconstants():
                self.assertEqual(levels.let_through(logger, each), LEVELS[each.name] >= LEVELS[level])

    def test_quiet(self) -> None:
        """Of Twisted only trouble is told, unless somebody wants more."""
        self.assertFalse(Levels("debug").let_through("twisted.web", LogLevel.info))
        self.assertTrue(Levels().let_through("twisted.web", LogLevel.warn))

    def test_setting(self) -> None:
        """Levels are written with commas between them; a wrong one is refused, saying what is allowed."""
        self.assertEqual(levels_by_name("A=off, b.c = WARN,"), {"A": "off", "b.c": "warn"})
        self.assertEqual(levels_by_name('{"A": "off"}'), {"A": "off"})
        for wrong in ("A", "A=loud", "=info", "A=info=x", '{"A": 1}'):
            self.assertIn("debug, info", str(self.assertRaises(ValueError, levels_by_name, wrong)))


class LayoutTests(SynchronousTestCase):
    """What lines look like."""

    def test_several(self) -> None:
        """Each line of an event with several of them is whole."""
        entry = entry_of(event(log_format=READY, line="a\nb", lines=["a", "b\x1b"], logger_name="TS_METRICS"))
        lines = long_layout()(entry).splitlines()
        self.assertEqual(
            [line[23:] for line in lines], [f" [INFO ] main TS_METRICS - {said}" for said in ("a", "b\\x1b")]
        )

    def test_json(self) -> None:
        """As JSON each line is an object, with the time in UTC, and with what it is about."""
        said = event(log_format="{x}", x='"\n', fields={"status": 200, "request_id": "r"}, log_level=LogLevel.warn)
        text = json_layout(entry_of(said))
        self.assertEqual(text.count("\n"), 1)
        self.assertEqual(
            json.loads(text),
            {
                "time": "2024-05-30T19:46:03.625Z",
                "level": "WARN",
                "logger": "n",
                "thread": "main",
                "message": '"\\n',
                "status": 200,
                "request_id": "r",
            },
        )

    def test_json_traceback(self) -> None:
        """A traceback is in its object."""
        try:
            raise ValueError("no")
        except ValueError:
            failure = Failure()
        said = json.loads(json_layout(entry_of(event(log_failure=failure))))
        self.assertIn("Traceback", said["traceback"])


class RouterTests(SynchronousTestCase):
    """Where lines go, and when."""

    def test_ways(self) -> None:
        """Everybody's lines go to some places, those of one logger to others, what is not worth it nowhere."""
        everything, access = StringIO(), StringIO()
        router = Router(
            [
                Destination(Gathering(to_stream(everything)), long_layout()),
                Destination(Gathering(to_stream(access)), json_layout, frozenset({"ACCESS_LOG"})),
            ],
            Levels("info", {"off": "off"}),
        )
        for logger in ("ACCESS_LOG", "n", "off"):
            router(event(logger_name=logger))
        self.assertEqual(everything.getvalue().count("\n"), 2)
        self.assertEqual(json.loads(access.getvalue())["logger"], "ACCESS_LOG")

    def test_gathering(self) -> None:
        """Lines of requests wait for each other for a moment; a warning does not, nor does anything after the end."""
        clock = Clock()
        written: list[str] = []
        router = Router([Destination(Gathering(written.append, clock.callLater), lambda entry: "l\n")], Levels())
        router(event(logger_name="ACCESS_LOG"))
        router(event(logger_name="ACCESS_LOG"))
        self.assertEqual(written, [])
        clock.advance(GATHERING)
        self.assertEqual(written, ["l\nl\n"])
        router(event(logger_name="ACCESS_LOG"))
        router(event(logger_name="ACCESS_LOG", log_level=LogLevel.warn))
        self.assertEqual(written[1:], ["l\nl\n"])
        router(event(logger_name="ACCESS_LOG"))
        router.close()
        router(event(logger_name="ACCESS_LOG"))
        self.assertEqual(written[2:], ["l\n", "l\n"])

    def test_now_and_then(self) -> None:
        """What no request brings is written at once, after the lines that waited: nobody loses an audit line."""
        written: list[str] = []
        router = Router([Destination(Gathering(written.append, Clock().callLater), long_layout())], Levels())
        router(event(logger_name="ACCESS_LOG"))
        router(event(logger_name="twisted_serve.auth.journal.Journal"))
        self.assertEqual(
            [line.split(" - ")[0].split()[-1] for line in "".join(written).splitlines()],
            ["ACCESS_LOG", "twisted_serve.auth.journal.Journal"],
        )

    def test_bounded(self) -> None:
        """What waits is not without bound."""
        written: list[str] = []
        gathering = Gathering(written.append, Clock().callLater)
        for _ in range(100):
            gathering.take("x" * 1000 + "\n")
        self.assertEqual(len(written), 1)

    def test_keys(self) -> None:
        """No key is written, in whichever field of JSON it is."""
        written: list[str] = []
        router = Router([Destination(Gathering(written.append), json_layout)], Levels())
        observer = redacting(router, lambda: ["secret-key"])
        observer(event(fields={"request_id": "a.secret-key"}))
        observer(event(log_format=READY, line="a\nsecret-key", lines=["a", "secret-key"]))
        self.assertNotIn("secret-key", "".join(written))
        self.assertEqual(
            [json.loads(line)["message"] for line in "".join(written).splitlines()], ["x", "a", "<redacted>"]
        )
