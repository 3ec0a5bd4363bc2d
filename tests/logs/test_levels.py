# SPDX-License-Identifier: Apache-2.0
"""Tests for levels, layouts and the ways of the log."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from hypothesis import given
from hypothesis.strategies import (
    DrawFn,
    SearchStrategy,
    characters,
    composite,
    dictionaries,
    floats,
    integers,
    lists,
    none,
    sampled_from,
    text,
)
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_serve.config.values import levels_by_name
from twisted_serve.logs.events import ACCESS_LOG, MODEL_LOG, READY
from twisted_serve.logs.layouts import json_layout, long_layout, short_layout
from twisted_serve.logs.levels import LEVELS, Levels
from twisted_serve.logs.records import Record, entry_of
from twisted_serve.logs.router import GATHERING, Destination, Router, to_stream


def event(**fields: Any) -> LogEvent:
    """Make an event."""
    return {"log_time": 1717098363.6259, "log_level": LogLevel.info, "log_namespace": "n", "log_format": "x", **fields}


def ready(line: str, **fields: Any) -> LogEvent:
    """Make an event as those that come with each request."""
    return event(**{"log_format": READY, "line": line, "logger_name": ACCESS_LOG, **fields})


def words() -> SearchStrategy[str]:
    """Make what an event may have in it: anything, what has to be escaped, a key."""
    some = text(alphabet=characters(), max_size=8) | sampled_from(["plain", "a\nb", "\x1b[2J", "\u202e", "\ud800"])
    return some | some.map(lambda word: f"{word}secret-key")


def field_sets() -> SearchStrategy[dict[str, object]]:
    """Make what an event may say in JSON besides, with names of ours among its names."""
    names = sampled_from(["status", "request_id", "time", "message", "traceback"]) | text(max_size=3)
    return dictionaries(names, text() | integers() | floats(allow_nan=False) | none(), max_size=3)


@composite
def events(draw: DrawFn) -> LogEvent:
    """Make an event of one line or of several, of those that wait or of others."""
    lines = draw(lists(words(), min_size=1, max_size=3))
    many = {"lines": lines, "line": "\n".join(lines)} if len(lines) > 1 else {"line": lines[0]}
    return ready(
        **many,
        log_time=draw(floats(0, 2e9)),
        log_level=draw(sampled_from(list(LogLevel.iterconstants()))),
        logger_name=draw(sampled_from([ACCESS_LOG, MODEL_LOG, "TS_METRICS", "n"])),
        thread_name=draw(words()),
        fields=draw(dictionaries(sampled_from(["status", "request_id"]), words() | integers())),
    )


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

    @given(text(), text(), text(), lists(text(), max_size=2), lists(field_sets(), min_size=1, max_size=3))
    def test_any_json(
        self, line: str, thread: str, logger: str, traceback: list[str], details: list[dict[str, object]]
    ) -> None:
        """Whatever is said, it is JSON's way of saying it, and what somebody calls as we do counts."""
        moments = [1717098363625 + number for number in range(len(details))]
        lines = [f"{line}{number}" for number in range(len(details))]
        entry = Record(moments, LogLevel.error, thread, logger, lines, traceback, details)
        expected = []
        for number, fields in enumerate(details):
            said = {
                "time": f"2024-05-30T19:46:03.{625 + number}Z",
                "level": "ERROR",
                "logger": logger,
                "thread": thread,
                "message": lines[number],
                **({"traceback": "\n".join(traceback)} if traceback else {}),
                **fields,
            }
            expected.append(json.dumps(said, ensure_ascii=False) + "\n")
        self.assertEqual(json_layout(entry), "".join(expected))

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

    def router(self, *destinations: Destination, levels: Levels | None = None, waits: bool = False) -> Router:
        """Make a router; whose lines wait, they do so by the clock of the test."""
        self.clock = Clock()
        self.secrets = ["secret-key"]
        call_later = self.clock.callLater if waits else None
        return Router(destinations, levels or Levels(), lambda: self.secrets, call_later)

    def test_interface(self) -> None:
        """It is an observer of Twisted's log."""
        verifyObject(ILogObserver, self.router())

    def test_ways(self) -> None:
        """Everybody's lines go to some places, those of one logger to others, what is not worth it nowhere."""
        everything, access = StringIO(), StringIO()
        router = self.router(
            Destination(to_stream(everything), long_layout()),
            Destination(to_stream(access), json_layout, frozenset({ACCESS_LOG})),
            levels=Levels("info", {"off": "off"}),
        )
        for logger in (ACCESS_LOG, "n", "off"):
            router(event(logger_name=logger))
        self.assertEqual(everything.getvalue().count("\n"), 2)
        self.assertEqual(json.loads(access.getvalue())["logger"], ACCESS_LOG)

    def test_gathering(self) -> None:
        """Lines of requests wait for each other for a moment; a warning does not, nor does anything after the end."""
        written: list[str] = []
        router = self.router(
            Destination(written.append, lambda entry: "".join(f"{line}\n" for line in entry.lines)), waits=True
        )
        router(ready("a"))
        router(ready("b"))
        self.assertEqual(written, [])
        self.clock.advance(GATHERING)
        self.assertEqual(written, ["a\nb\n"])
        router(ready("c"))
        router(ready("d", log_level=LogLevel.warn))
        self.assertEqual(written[1:], ["c\n", "d\n"])
        router(ready("e"))
        router.close()
        router(ready("f"))
        self.assertEqual(written[3:], ["e\n", "f\n"])
        self.clock.advance(GATHERING)
        self.assertEqual(written[5:], [])

    def test_now_and_then(self) -> None:
        """What no request brings is written at once, after the lines that waited: nobody loses an audit line."""
        written: list[str] = []
        router = self.router(Destination(written.append, long_layout()), waits=True)
        router(ready("x"))
        router(event(logger_name="twisted_serve.auth.audit.AuditLog"))
        self.assertEqual(
            [line.split(" - ")[0].split()[-1] for line in "".join(written).splitlines()],
            [ACCESS_LOG, "twisted_serve.auth.audit.AuditLog"],
        )

    def test_trouble(self) -> None:
        """An event that cannot be written takes none of the lines that waited with it."""
        written: list[str] = []
        router = self.router(Destination(written.append, long_layout()), waits=True)
        router(ready("x"))
        self.assertRaises(KeyError, router, {"log_format": "no time"})
        self.assertEqual(len(written), 1)

    def test_bounded(self) -> None:
        """What waits is not without bound."""
        written: list[str] = []
        router = self.router(Destination(written.append, long_layout()), waits=True)
        for _ in range(100):
            router(ready("x" * 1000))
        self.assertEqual(len(written), 1)

    def test_keys(self) -> None:
        """No key is written, in whichever field of JSON it is, and however many lines are written with it."""
        for waits in (False, True):
            written: list[str] = []
            router = self.router(Destination(written.append, json_layout), waits=waits)
            router(ready("first"))
            router(ready("x", fields={"request_id": "a.secret-key"}))
            router(ready("a\nsecret-key", lines=["a", "secret-key"]))
            router(ready("b", thread_name="W-secret-key"))
            router.flush()
            self.assertNotIn("secret-key", "".join(written))
            self.assertEqual(
                [json.loads(line)["message"] for line in "".join(written).splitlines()],
                ["first", "x", "a", "<redacted>", "b"],
            )

    @given(lists(events(), max_size=20))
    def test_gathered(self, said: list[LogEvent]) -> None:
        """Whatever is said, what is written of many events at once is what is written of each."""
        for layout in (long_layout, short_layout, lambda: json_layout):
            one_by_one: list[str] = []
            together: list[str] = []
            at_once = self.router(Destination(one_by_one.append, layout()))
            soon = self.router(Destination(together.append, layout()), waits=True)
            for each in said:
                at_once(each)
                soon(each)
            soon.flush()
            self.assertEqual("".join(together), "".join(one_by_one))
            self.assertNotIn("secret-key", "".join(together))
            written = [each for each in said if each["log_level"] >= LogLevel.info]
            self.assertEqual(
                "".join(together).count("\n"), sum(len(each.get("lines", [each["line"]])) for each in written)
            )
