# SPDX-License-Identifier: Apache-2.0
"""Hold the fast lane to the way of all other requests: clients, logs, counters and handlers cannot tell them apart."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys_case import KeyedServer
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.listening.roles import Role
from twisted_serve.testing.server import MemoryConnection, MemoryServer
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.wire.messages import Item, Job

CONNECTIONS = 2

# Answers by the first byte of a body.
ANSWERS: dict[bytes, Callable[[str, bytes], Item]] = {
    b"h": lambda name, body: Item(name, 200, "", {"Content-Type": "text/plain", "X-Own": "ü", "Date": "no"}, body),
    b"p": lambda name, body: Item(name, 200, "Fine\r\n", {}, body),
    b"s": lambda name, body: Item(name, 201, "", {"a": "b"}, body),
    b"n": lambda name, body: Item(name, 204, "", {}, body),
    b"e": lambda name, body: Item(name, 500, "", {}, body),
    b"l": lambda name, body: Item(name, 200, "", {"x": "y" * 2000}, body),
    b"u": lambda name, body: Item(name, 200, "", {"\u20ac": "no header"}, body),
    b"f": lambda name, body: Item(name, 0, "", {}, b"", flaw="no JSON"),
}


def respond(jobs: list[Job]) -> list[Item] | Exception:
    """Answer as the bodies say."""
    bodies = [job.parts[0].value if job.parts else b"" for job in jobs]
    if b"r" in [body[:1] for body in bodies]:
        return WorkerFailed(503, "The handler raised", "ValueError: x (handler.py, line 1)")
    plain = ANSWERS[b"h"]
    return [ANSWERS.get(body[:1], plain)(job.request_id, body) for job, body in zip(jobs, bodies, strict=True)]


class World:
    """
    A server with two connections, whose every effect is written down.

    :ivar seen: What happened, in order.
    """

    def __init__(self, fast_lane: bool, tokens: bool, holding: bool) -> None:
        random.seed(13)
        self.seen: list[object] = []
        self.revoked = False
        options = {"fast_lane": fast_lane, "job_queue_size": 2, "keepalive_timeout": 50}
        if tokens:
            self.server: MemoryServer = KeyedServer(options, respond=respond, models={"m": {}})
        else:
            options["disable_token_authorization"] = True
            self.server = MemoryServer(options, respond=respond, models={"m": {}})
        self.workers = self.server.provider
        # No worker answers before a batch has been sent; if one did, lines about both would be in another order.
        self.workers.answer_delay = 0.001
        for worker in self.workers.workers:
            worker.holding = holding
        self.keys = self._keys() if tokens else dict.fromkeys((b"INFERENCE", b"MANAGEMENT", b"NAMED", b"OTHER"), b"x")
        self.connections = [self.server.connect() for _ in range(CONNECTIONS)]
        self._observer = cast(ILogObserver, self._log)
        globalLogPublisher.addObserver(self._observer)

    def _keys(self) -> dict[bytes, bytes]:
        keys = {kind.name.encode(): self.server.key(kind).encode() for kind in TokenKind}
        if isinstance(self.server, KeyedServer):
            for name, scope in (("NAMED", "inference:m"), ("OTHER", "inference:x*")):
                keys[name.encode()] = self.server.put(name, scope, rate=3, concurrent=1).encode()
        return keys

    def revoke(self) -> None:
        """Revoke the named key."""
        if isinstance(self.server, KeyedServer) and not self.revoked:
            self.revoked = True
            self.server.revoke("NAMED")

    def _log(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("twisted_serve"):
            self.seen.append((event.get("logger_name"), formatEvent(event), event.get("fields")))

    def close(self) -> None:
        """End the server."""
        globalLogPublisher.removeObserver(self._observer)
        self.server.close()

    def do(self, what: str, *arguments: Any) -> None:
        """Take a step."""
        getattr(self, what)(*arguments)
        self.seen += [(connection.open, masked(connection.received)) for connection in self.connections]
        self.seen.append([[(worker.batches, worker.cancelled, worker.paused)] for worker in self.workers.workers])

    def send(self, number: int, data: bytes, cuts: Sequence[int]) -> None:
        """Send bytes on a connection, in several reads, with the words for keys replaced by keys."""
        for word, key in self.keys.items():
            data = data.replace(b"<%s>" % word, key)
        ends = sorted({min(each, len(data)) for each in cuts} | {len(data)})
        for begin, end in zip([0, *ends], ends, strict=False):
            self.connections[number].send(data[begin:end])
            self.server.advance(0.002)

    def leave(self, number: int) -> None:
        """Disconnect, and connect again."""
        self.connections[number].leave()
        self.connections[number] = self.server.connect()

    def stop_reading(self, number: int) -> None:
        """Read no answers."""
        self.connections[number].stop_reading()

    def read_on(self, number: int) -> None:
        """Read answers again."""
        self.connections[number].read_on()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.server.advance(seconds)

    def answer(self) -> None:
        """Let each worker that holds a batch answer it."""
        for worker in self.workers.alive:
            worker.answer()

    def chunk(self) -> None:
        """Send a part of an answer."""
        for worker in self.workers.alive:
            for batch in worker.running[:1]:
                worker.chunk(Item(batch[0].request_id, 200, "", {"content-type": "text/event-stream"}, b"part"))

    def kill(self) -> None:
        """End each worker."""
        for worker in self.workers.alive:
            worker.kill()

    def finish_up(self) -> None:
        """Close idle connections, as a server that stops does."""
        site: Any = self.server.site_of(Role.INFERENCE)
        site.finish_up()


#: The name of a method of `World`, and its arguments.
Step: TypeAlias = "tuple[Any, ...]"


def masked(received: bytes) -> bytes:
    """Return bytes without their dates, which are the machine's."""
    return re.sub(rb"\r\nDate: [^\r]*", b"", received)


def counters(world: World) -> list[str]:
    """Return the metrics of a server, without those of its process."""
    text = world.server.request("GET", "/metrics", role=Role.METRICS).body.decode()
    return [line for line in text.splitlines() if "process_" not in line]


def outcome(steps: Sequence[Step], fast_lane: bool, tokens: bool, holding: bool) -> list[object]:
    """Return all that happens."""
    world = World(fast_lane, tokens, holding)
    try:
        for what, *arguments in steps:
            world.do(what, *arguments)
        world.advance(1.0)
        return [*world.seen, counters(world)]
    finally:
        world.close()


# What may stand in place of each part of a usual request. The first of each list is what the fast lane takes.
PARTS: dict[str, list[str]] = {
    "method": ["POST", "GET", "PUT", "HEAD", "OPTIONS", "DELETE", "post"],
    "target": [
        "/predictions/m",
        "/predictions/m/1.0",
        "/predictions/m/",
        "/predictions/m/9",
        "/predictions/x",
        "/predictions/m/1.0/more",
        "/predictions//m",
        "//predictions/m",
        "/predictions/%6d",
        "/predictions/m?x=1",
        "/predictions/..",
        "/predictions/./m",
        "/predictions",
        "/predictions/",
        "/predictions/m;x",
        "/predictions/m\t",
        "/predictions/m#f",
        "/predictions/M",
        "/Predictions/m",
        "/predictions/m/1.0//",
        "/explanations/m",
        "/ping",
        "/models",
        "http://h/predictions/m",
    ],
    "version": ["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1"],
    "host": ["Host: h", "Host: h:1", "Host:", "Host: a b", "Host: h\r\nhost: h", "No: host"],
    "key": [
        "Authorization: Bearer <INFERENCE>",
        "Authorization: Bearer <NAMED>",
        "Authorization: Bearer <OTHER>",
        "authorization: bearer <INFERENCE>",
        "Authorization:Bearer  <NAMED> ",
        "Authorization: Bearer <MANAGEMENT>",
        "Authorization: Bearer wrong",
        "Authorization: Bearer",
        "Authorization: Basic <INFERENCE>",
        "Authorization: Bearer <INFERENCE>\r\nauthorization: Bearer <INFERENCE>",
        "X: y",
    ],
    "length": ["{}", "0{}", "+{}", "{}0", "", "-1", "{0}, {0}", "1" * 19, "0x{}", "{}\r\nContent-Length: {}"],
    "more": [
        "Accept: */*",
        "Content-Type: application/json",
        "content-type: text/plain; charset=utf-8",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: multipart/form-data",
        "Connection: keep-alive",
        "connection: Keep-Alive",
        "Connection: close",
        "Connection: keep-alive, x",
        "X-Request-Id: my-id",
        "X-Request-Id: no id",
        "X-Request-Timeout-Ms: 20000",
        "X-Request-Timeout-Ms: never",
        "Expect: 100-continue",
        "Expect: x",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Content-Encoding: gzip",
        "Content-Encoding: identity",
        "Upgrade: h2c",
        "TE: trailers",
        "Cookie: a=b",
        "X-Ts-Key-Name: forged",
        "url_path: forged",
        "explain: True",
        "describe: 1",
        "X-Odd: \tv \t",
        "X-Odd:",
        "X-Odd: \x01",
        "X-Odd: ü",
        "X-Odd: a\nb",
        "X Odd: v",
        "x-odd : v",
        "x_odd: v",
        "!odd: v",
        " folded: v",
        "X-Long: " + "y" * 8200,
        "\r\n".join(f"n{number}: v" for number in range(70)),
        "no colon",
        ": no name",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
}
BODIES = [b"h", b"", b"1", b"{}", b"p", b"s", b"n", b"e", b"l", b"u", b"f", b"r", b"a=b&c=d", b"x" * 70000]


def rendered(parts: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request."""
    line = f"{parts['method']} {parts['target']} {parts['version']}"
    length = [f"Content-Length: {parts['length'].format(len(body), len(body))}"] if parts["length"] else []
    head = "\r\n".join([line, parts["host"], parts["key"], *length, parts["more"], "", ""])
    return head.encode("utf-8") + body


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Generate a request: usual but for a few parts, or a few bytes."""
    odd = draw(st.sets(st.sampled_from(sorted(PARTS)), max_size=3))
    parts = {name: draw(st.sampled_from(values)) if name in odd else values[0] for name, values in PARTS.items()}
    data = bytearray(rendered(parts, draw(st.sampled_from(BODIES))))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, min(len(data), 300) - 1))
        data[at : at + draw(st.integers(0, 1))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b" ", b"\x00", b"\xff", b":"])
        )
    return bytes(data)


@st.composite
def sends(draw: st.DrawFn) -> Step:
    """Generate what a client sends: usually one request in one read."""
    data = draw(requests())
    if draw(st.integers(0, 4)) == 0:
        data = draw(st.sampled_from([b"\r\n", b"\r\n\r\n", b""])) + data + draw(requests() | st.just(b""))
    cuts = draw(st.just([]) | st.lists(st.integers(1, 400), max_size=3))
    return ("send", draw(st.integers(0, CONNECTIONS - 1)), data, cuts)


def steps() -> SearchStrategy[Step]:
    """Generate steps."""
    numbers = st.integers(0, CONNECTIONS - 1)
    return (
        sends()
        | sends()
        | sends()
        | st.tuples(st.sampled_from(["leave", "stop_reading", "read_on"]), numbers)
        | st.tuples(st.sampled_from(["answer", "answer", "answer", "chunk", "kill", "finish_up", "revoke"]))
        | st.tuples(st.just("advance"), st.sampled_from([0.01, 1.0, 49.0, 51.0, 121.0, 3601.0]))
    )


USUAL = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer <INFERENCE>\r\nContent-Length: 2\r\n\r\nhi"
NAMED = USUAL.replace(b"<INFERENCE>", b"<NAMED>")


@given(st.lists(steps(), min_size=1, max_size=8), st.sampled_from([True, True, True, False]), st.booleans())
@example([("send", 0, USUAL, [])] * 3, True, False)
@example(
    [("send", 0, USUAL, []), ("leave", 0), ("send", 1, USUAL, []), ("chunk",), ("answer",), ("answer",)], True, True
)
@example([("send", 0, USUAL, []), ("send", 0, USUAL, [9]), ("answer",), ("answer",)], True, True)
@example([("send", 0, USUAL, []), ("finish_up",), ("answer",)], True, True)
@example([("send", 0, USUAL, []), ("advance", 51.0), ("answer",), ("advance", 49.0), ("advance", 2.0)], True, True)
@example([("send", 0, NAMED, [])] * 5, True, False)
@example([("send", 0, NAMED, []), ("send", 1, NAMED, []), ("answer",), ("send", 1, NAMED, []), ("answer",)], True, True)
@example([("send", 0, USUAL, []), ("kill",), ("advance", 3601.0), ("send", 0, USUAL, [])], True, True)
@example([("stop_reading", 0), ("send", 0, USUAL, []), ("send", 0, USUAL, []), ("read_on", 0)], True, False)
@example([("send", 0, b"\r\n", []), ("send", 0, USUAL, []), ("send", 0, b"\r\n" + USUAL, [])], True, False)
def test_same_as_without(steps: list[Step], tokens: bool, holding: bool) -> None:
    """Whatever clients send, and whatever comes of it: the lane changes nothing that can be seen."""
    compare(steps, tokens, holding)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("tokens", [True, False])
def test_each_part(name: str, tokens: bool) -> None:
    """Requests that are usual but for one part, with each body, each on a connection that has had another."""
    usual = {name: values[0] for name, values in PARTS.items()}
    steps: list[Step] = []
    for number, value in enumerate(PARTS[name]):
        for body in (BODIES[0], BODIES[1 + number % (len(BODIES) - 1)]):
            steps += [("send", 0, USUAL, []), ("send", 0, rendered({**usual, name: value}, body), []), ("leave", 0)]
    compare(steps, tokens, holding=False)


def compare(steps: Sequence[Step], tokens: bool, holding: bool) -> None:
    """Check that the same happens with the lane and without."""
    with_lane, without = (outcome(steps, fast_lane, tokens, holding) for fast_lane in (True, False))
    for one, other in zip(with_lane, without, strict=False):
        if one != other:
            note(f"with the lane: {one!r}\nwithout:       {other!r}")
            break
    assert with_lane == without


@pytest.mark.parametrize("more", ["", "\r\nConnection: keep-alive", "\r\nX-Request-Id: a", "\r\nAccept: */*"])
@pytest.mark.parametrize("key", ["INFERENCE", "NAMED"])
@pytest.mark.parametrize("length", [0, 1, 1000, 60000])
def test_usual_requests_take_the_lane(key: str, more: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lane is for makes no request of Twisted's: the comparison above is not of one way with itself."""
    world = World(fast_lane=True, tokens=True, holding=False)
    try:
        made: list[object] = []
        monkeypatch.setattr(ServeRequest, "__init__", lambda *arguments: made.append(arguments))
        connection: MemoryConnection = world.connections[0]
        head = USUAL.partition(b"\r\n\r\n")[0].replace(b"INFERENCE", key.encode()).replace(b": 2", b": %d" % length)
        world.send(0, head + more.encode() + b"\r\n\r\n" + b"i" * length, [])
        assert connection.received.startswith(b"HTTP/1.1 200 ")
        assert connection.received.endswith(b"\r\n\r\n" + b"i" * length)
        assert made == []
    finally:
        world.close()


class RememberedTests(SynchronousTestCase):
    """What is kept of heads."""

    def test_bounds(self) -> None:
        """Heads of clients without a key, long ones and those with ids are not kept; of others, some hundred."""
        server = MemoryServer({"fast_lane": True}, models={"m": {}})
        self.addCleanup(server.close)
        site: Any = server.site_of(Role.INFERENCE)
        right = USUAL.replace(b"<INFERENCE>", server.key(TokenKind.INFERENCE).encode())
        for head in (
            USUAL,
            right.replace(b"Host: h", b"Host: h\r\nX-Long: " + b"y" * 3000),
            right.replace(b"Host: h", b"Host: h\r\nX-Request-Id: 1"),
        ):
            connection = server.connect()
            connection.send(head)
            self.assertEqual((site.fast_lane._remembered, connection._channel.recognized), ({}, None))
        connection = server.connect()
        for number in range(600):
            connection.send(right.replace(b"Host: h", b"Host: h\r\nX-Number: %d" % number))
            self.assertIn(len(site.fast_lane._remembered), range(1, 257))
        self.assertEqual(connection.received.count(b"HTTP/1.1 200 OK"), 600)


class BrokenTests(SynchronousTestCase):
    """What fails on the lane itself."""

    def test_answer_not_written(self) -> None:
        """A client that got no answer, since something of ours failed, notices; the server goes on."""
        server = MemoryServer({"fast_lane": True}, models={"m": {}})
        self.addCleanup(server.close)
        key = server.key(TokenKind.INFERENCE).encode()
        self.patch(ServeChannel, "answer_quickly", lambda *_arguments: 1 / 0)
        connection = server.connect()
        self.assertEqual(connection.send(USUAL.replace(b"<INFERENCE>", key)), b"")
        self.assertFalse(connection.open)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(server.opens(key.decode()))
