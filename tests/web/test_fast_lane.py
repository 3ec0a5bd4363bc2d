# SPDX-License-Identifier: Apache-2.0
"""Hold the fast lane to the way of all other requests: clients, logs, counters and handlers cannot tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.web.lane_requests import NAMED, PARTS, USUAL, Step, odd_in, steps
from tests.web.lane_world import World, outcome
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.listening.roles import Role
from twisted_serve.testing.server import MemoryConnection, MemoryServer
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.request import ServeRequest


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
@example([("send", 0, USUAL.replace(b"POST /", b"HEAD //"), [])], True, False)
def test_same_as_without(steps: list[Step], tokens: bool, holding: bool) -> None:
    """Whatever clients send, and whatever comes of it: the lane changes nothing that can be seen."""
    compare(steps, tokens, holding)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("tokens", [True, False])
def test_each_part(name: str, tokens: bool) -> None:
    """Requests that are usual but for one part, with each body, each on a connection that has had another."""
    compare(odd_in(name), tokens, holding=False)


def compare(steps: Sequence[Step], tokens: bool, holding: bool) -> None:
    """Check that the same happens with the lane and without."""
    with_lane, without = (outcome(World(fast_lane, tokens, holding), steps) for fast_lane in (True, False))
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
