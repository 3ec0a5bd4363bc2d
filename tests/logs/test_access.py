# SPDX-License-Identifier: Apache-2.0
"""Tests for the access log: what requests say, as events and past them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis.strategies import (
    DrawFn,
    SearchStrategy,
    binary,
    booleans,
    composite,
    floats,
    integers,
    just,
    lists,
    none,
    sampled_from,
    text,
    tuples,
)
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.redaction import redacting
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.logs import AccessLog, shortcut
from twisted_serve.logs.events import ACCESS_LOG, MODEL_LOG, READY, TS_METRICS
from twisted_serve.logs.layouts import Layout, json_layout, text_layouts
from twisted_serve.logs.levels import LEVELS, Levels
from twisted_serve.logs.router import GATHERING, Destination, Router
from twisted_serve.testing.server import MemoryServer

KEYS = ("Zq3-_xW9aBcDeFgHiJkLmN", "0123456789abcdefghijkl")


class Step(NamedTuple):
    """
    What happens: a request or an event, at a time, or a flush.

    :ivar said: The arguments of `AccessLog.add`, an event, or ``None`` for a flush.
    """

    moment: float
    said: tuple[Any, ...] | LogEvent | None


def words() -> SearchStrategy[str]:
    """Make what clients, applications and handlers may say: anything, what has to be escaped, keys."""
    return text(max_size=6) | sampled_from(["i", "a\nb", "\x1b[2J", "\u202e", "\ud800", f"x{KEYS[0]}", KEYS[1]])


def targets() -> SearchStrategy[bytes]:
    """Make targets: the usual ones, any bytes, keys, also encoded."""
    encoded = "".join(f"%{ord(character):02x}" for character in KEYS[0]).encode()
    return binary(max_size=8) | sampled_from(
        [b"/predictions/m", b"/a\nb", b'/x" 200 1', f"/ping?key={KEYS[0]}".encode(), b"/" + encoded]
    )


def requests() -> SearchStrategy[tuple[Any, ...]]:
    """Make the arguments of `AccessLog.add`."""
    return tuples(
        none() | tuples(sampled_from(["127.0.0.1", "::1"]), integers(1, 65535)),
        sampled_from([b"GET", b"POST"]) | binary(max_size=4),
        targets(),
        just(b"HTTP/1.1") | binary(max_size=4),
        integers(100, 599),
        floats(0, 1e5),
        none() | words(),
        booleans(),
        none() | words(),
    )


@composite
def events(draw: DrawFn) -> LogEvent:
    """Make an event of another logger, or of the same; one that waits, or a rare one."""
    line = draw(words())
    return {
        "log_namespace": "n",
        "log_format": draw(sampled_from([READY, "{line}!"])),
        "line": line,
        "log_level": draw(sampled_from(list(LogLevel.iterconstants()))),
        "logger_name": draw(sampled_from([ACCESS_LOG, MODEL_LOG, TS_METRICS, "n"])),
        "thread_name": draw(sampled_from(["main", "W-9000-m_1.0-stdout"])),
        "fields": {"status": draw(words())},
    }


def steps() -> SearchStrategy[list[Step]]:
    """Make what happens, in any order."""
    moments = floats(0, 2e9) | sampled_from([1717098363.6259, 1717098363.999, 1717098364.0])
    said = requests() | requests() | events() | none()
    return lists(tuples(moments, said).map(lambda one: Step(*one)), max_size=20)


class Written:
    """What a log writes into its files, each with a layout and the loggers that it is for."""

    def __init__(self, layouts: tuple[Layout, Layout], levels: Levels, clock: Clock | None) -> None:
        self.files: list[list[str]] = [[], [], []]
        long, short = layouts
        everything, access, again = self.files
        self.router = Router(
            [
                Destination(everything.append, long),
                Destination(access.append, short, frozenset({ACCESS_LOG})),
                Destination(again.append, long),
            ],
            levels,
            lambda: KEYS,
            None if clock is None else clock.callLater,
        )
        self._moment = 0.0
        redact = redacting(lambda: [key.encode() for key in KEYS], 22)
        self.access_log = AccessLog(Logger("n", observer=self.router), redact, lambda: self._moment)

    def take(self, step: Step, straight: bool) -> None:
        """Let one thing happen; requests come as events, or go straight into the log."""
        self._moment = step.moment
        if step.said is None:
            self.router.flush()
        elif isinstance(step.said, dict):
            self.router({**step.said, "log_time": step.moment})
        elif straight:
            with shortcut(self.router.add_request):
                self.access_log.add(*step.said)
        else:
            self.access_log.add(*step.said)

    def texts(self) -> list[str]:
        """Return the contents of the files."""
        return ["".join(each) for each in self.files]


class StraightTests(SynchronousTestCase):
    """Requests that go straight into the log."""

    @given(steps(), sampled_from(sorted(LEVELS)), sampled_from(["info", "off"]), booleans())
    def test_same(self, said: list[Step], level: str, of_access: str, as_json: bool) -> None:
        """Whatever is logged, in whichever order: the files have the bytes that events written one by one make."""
        levels = Levels(level, {ACCESS_LOG: of_access})
        clock = Clock()
        logs = [
            Written((json_layout, json_layout) if as_json else text_layouts(), levels, each)
            for each in (None, clock, clock)
        ]
        for step in said:
            for log in logs:
                log.take(step, straight=log is not logs[0])
            # The third is flushed by time alone.
            if step.said is None:
                clock.advance(GATHERING / 3)
        for log in logs:
            log.router.close()
        one_by_one, *others = [log.texts() for log in logs]
        for texts in others:
            self.assertEqual(texts, one_by_one)
        for key in KEYS:
            self.assertNotIn(key, "".join(one_by_one))

    def test_order(self) -> None:
        """A rare line is written at once, after the requests that came before it; a request waits."""
        clock = Clock()
        log = Written(text_layouts(), Levels(), clock)
        request = (("::1", 1), b"GET", b"/a", b"HTTP/1.1", 200, 0.0, None, False, None)
        log.take(Step(1.0, request), straight=True)
        self.assertEqual(log.files[0], [])
        log.take(Step(2.0, {"log_format": "rare", "log_namespace": "n", "log_level": LogLevel.info}), straight=True)
        self.assertEqual([line.split(" - ")[1] for line in log.texts()[0].splitlines()][1:], ["rare"])
        log.take(Step(3.0, request), straight=True)
        self.assertEqual(log.texts()[1].count("\n"), 1)
        clock.advance(GATHERING)
        self.assertEqual(log.texts()[1].count("\n"), 2)

    def test_bounded(self) -> None:
        """Requests with long targets do not fill the memory until the time of a flush has come."""
        log = Written(text_layouts(), Levels(), Clock())
        for _ in range(100):
            log.take(Step(1.0, (None, b"GET", b"/" * 8000, b"HTTP/1.1", 200, 0.0, None, False, None)), straight=True)
        self.assertGreater(len(log.files[1]), 10)

    def test_meanwhile(self) -> None:
        """A line that comes while others are rendered, as from another thread, is written after them."""
        written: list[str] = []
        clock = Clock()
        router = Router([Destination(written.append, text_layouts()[1])], Levels(), lambda: (), clock.callLater)
        late = {"log_time": 1.0, "log_format": READY, "line": "late", "logger_name": MODEL_LOG}

        def redact(target: bytes) -> bytes:
            router(dict(late))
            return target

        with shortcut(router.add_request):
            AccessLog(Logger("n"), redact).add(None, b"GET", b"/a", b"HTTP/1.1", 200, 0.0, None, False, None)
        clock.advance(GATHERING)
        self.assertEqual([line.count("late") for line in written], [0])
        clock.advance(GATHERING)
        self.assertEqual([line.count("late") for line in written], [0, 1])

    def test_without(self) -> None:
        """With the shortcut closed again, requests are events, as the observers of a host application expect."""
        seen: list[LogEvent] = []
        taken: list[object] = []
        access_log = AccessLog(Logger("n", observer=seen.append), lambda target: target)  # type: ignore[arg-type]
        request = (None, b"GET", b"/a", b"HTTP/1.1", 404, 0.5, "i", False, "p")
        with shortcut(taken.append):
            access_log.add(*request)
        self.assertEqual((len(taken), seen), (1, []))
        access_log.add(*request)
        [event] = seen
        self.assertEqual(event["line"], '127.0.0.1 "GET /a HTTP/1.1" 404 500 i principal=p')
        self.assertEqual(event["fields"], {"status": 404, "milliseconds": 500.0, "request_id": "i", "principal": "p"})


class ServerTests(SynchronousTestCase):
    """A server whose requests go straight into the log."""

    def test_rotation(self) -> None:
        """A key in a target that is replaced before the line is written is in no line."""
        written: list[str] = []
        with MemoryServer() as server:
            router = Router([Destination(written.append, json_layout)], Levels(), lambda: (), server.clock.callLater)
            key = server.key(TokenKind.INFERENCE)
            with shortcut(router.add_request):
                server.request("GET", f"/nothing?key={key}", key)
                self.assertEqual(written, [])
                self.assertEqual(server.request("GET", "/token?type=inference", server.key(TokenKind.API)).status, 200)
                server.request("GET", f"/nothing?key={server.key(TokenKind.INFERENCE)}", key)
                router.flush()
            said = [json.loads(line)["message"] for line in "".join(written).splitlines()]
        self.assertIn("/nothing?key=<redacted> ", said[0])
        self.assertNotIn(key, "".join(written))
        self.assertIn("/nothing?key=<redacted> ", said[-1])
