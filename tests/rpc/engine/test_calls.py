# SPDX-License-Identifier: Apache-2.0
"""Calls from their headers to their status."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.rpc.engine.rig import REFUSAL, Producer, Rig, message, unknown, values
from twisted_serve.errors import BadRequest
from twisted_serve.rpc.contracts import Admitted
from twisted_serve.rpc.frames import framed

KEY = "key"


@pytest.mark.parametrize("split", [False, True])
def test_a_unary_call_is_answered(split: bool) -> None:
    rig = Rig()
    call = rig.connect(split=split).call("/s/Echo", message(b"hello"), KEY, metadata=[("x-request-id", "mine")])
    assert (values(call), call.code, call.text, call.ended, call.reset) == ([b"hello"], 0, "", True, None)
    assert call.headers == {"content-type": "application/grpc", "x-request-id": "mine"}
    (end,) = rig.ends
    assert (end.path, end.code, end.whole, end.refused) == (b"/s/Echo", 0, True, False)
    assert (end.request_id, end.named, end.principal) == ("mine", True, "someone")
    assert (b"x-request-id", b"mine") in end.metadata


@pytest.mark.parametrize("split", [False, True])
def test_a_stream_is_sent_as_it_comes(split: bool) -> None:
    rig = Rig()
    connection = rig.connect(split=split)
    call = connection.call("/s/Stream", message(b"x"), KEY)
    (running, request, done) = rig.waiting[0]
    assert request.value == b"x"
    for value in (b"1", b"", b"3" * 100_000):
        running.send(message(value))
    rig.advance(0, connection)
    assert values(call) == [b"1", b"", b"3" * 100_000]
    assert not call.over
    done.callback(None)
    rig.advance(0, connection)
    assert (call.code, call.ended, rig.codes) == (0, True, ["OK"])


@pytest.mark.parametrize("split", [False, True])
def test_both_sides_of_a_conversation_send(split: bool) -> None:
    rig = Rig()
    connection = rig.connect(split=split)
    call = connection.begin("/s/Talk", KEY)
    (talk,) = rig.talks
    for value in (b"a", b"", b"c" * 1000):
        call.send(message(value))
        talk.call.send(message(value.upper()))
    rig.advance(0, connection)
    assert talk.messages == [b"a", b"", b"c" * 1000]
    assert values(call) == [b"A", b"", b"C" * 1000]
    call.half_close()
    assert (talk.done, call.over) == (1, False)
    talk.call.finish()
    rig.advance(0, connection)
    assert (call.code, talk.gone, rig.codes) == (0, 0, ["OK"])


def test_a_conversation_fails_with_the_status_of_its_failure() -> None:
    rig = Rig()
    connection = rig.connect()
    call = connection.begin("/s/Talk", KEY)
    rig.talks[0].call.fail(unknown())
    rig.advance(0, connection)
    assert (call.code, call.text, call.reset, rig.talks[0].gone) == (13, "it went wrong", 0, 0)


def test_a_refused_client_moves_one_window_at_most() -> None:
    rig = Rig()
    connection = rig.connect()
    waiting: Deferred[Any] = Deferred()
    rig.door.decision = waiting
    call = connection.call("/s/Echo", message(b"x" * 1_000_000))
    assert len(call.unsent) == 1_000_000 + 9 - 65535
    waiting.callback(REFUSAL)
    rig.advance(0, connection)
    assert (call.code, call.text, call.reset) == (7, "Token Authorization failed.", 0)
    assert len(call.unsent) == 1_000_000 + 9 - 65535
    (end,) = rig.ends
    assert (end.refused, end.method) == (True, None)


def test_a_call_waits_for_the_door() -> None:
    rig = Rig()
    connection = rig.connect()
    waiting: Deferred[Any] = Deferred()
    rig.door.decision = waiting
    call = connection.call("/s/Echo", message(b"x" * 1_000_000))
    waiting.callback(Admitted())
    rig.advance(0, connection)
    assert (call.code, len(values(call)[0])) == (0, 1_000_000)


def test_the_door_learns_that_the_client_has_left() -> None:
    rig = Rig()
    connection = rig.connect()
    left: list[object] = []
    rig.door.decision = Deferred(left.append)
    connection.begin("/s/Echo").cancel()
    assert len(left) == 1
    assert rig.codes == ["CANCELLED"]


def test_a_deadline_bounds_the_call() -> None:
    rig = Rig()
    connection = rig.connect()
    call = connection.call("/s/Wait", b"", KEY, timeout=1.5)
    assert rig.waiting[0][0].deadline == rig.clock.seconds() + 1.5
    rig.advance(1.4, connection)
    assert (call.over, rig.cancelled) == (False, 0)
    rig.advance(0.1, connection)
    assert (call.code, rig.cancelled, rig.codes) == (4, 1, ["DEADLINE_EXCEEDED"])
    assert call.text == "The call was not answered within the 1.5 s of its grpc-timeout."


def test_a_cancelled_call_cancels_its_work() -> None:
    rig = Rig()
    connection = rig.connect()
    connection.call("/s/Wait", b"", KEY).cancel()
    connection.begin("/s/Talk", KEY).cancel()
    assert (rig.cancelled, rig.talks[0].gone, rig.codes) == (1, 1, ["CANCELLED"] * 2)
    assert [end.whole for end in rig.ends] == [False, False]


def test_a_lost_connection_cancels_its_calls() -> None:
    rig = Rig()
    connection = rig.connect()
    connection.call("/s/Wait", b"", KEY)
    connection.call("/s/Wait", b"", KEY)
    connection.leave()
    assert (rig.cancelled, rig.codes) == (2, ["CANCELLED"] * 2)
    assert rig.factory.connections == set()
    assert not [delayed for delayed in rig.clock.getDelayedCalls() if delayed.getTime() > rig.clock.seconds()]


def test_errors_have_the_status_of_the_method() -> None:
    rig = Rig()
    connection = rig.connect()
    known = connection.call("/s/Fail", message(b"known"), KEY)
    assert (known.code, known.text) == (10, "of Fail: as told")


@pytest.mark.filterwarnings("ignore")
def test_an_unknown_error_tells_nothing() -> None:
    rig = Rig()
    call = rig.connect().call("/s/Fail", message(b"unknown"), KEY)
    assert (call.code, call.text) == (13, "Internal server error.")


def test_what_is_no_call_is_refused_with_a_text() -> None:
    rig = Rig(message=1000)
    connection = rig.connect()
    bad = {
        "no protobuf": (connection.call("/s/Echo", b"\xff\xff", KEY), 13, "The 2 bytes of the message are no google."),
        "none": (connection.begin("/s/Echo", KEY, end=True), 12, "takes one message, and none was sent"),
        "too large": (connection.call("/s/Echo", bytes(2000), KEY), 8, "has 2000 bytes, more than 1000 (max_requ"),
        "unknown": (connection.call("/s/No", b"", KEY), 12, "Method not found: /s/No"),
        "coding": (
            connection.call("/s/Echo", b"", KEY, metadata=[("grpc-encoding", "snappy")]),
            12,
            "grpc-encoding 'snappy' is not supported",
        ),
        "timeout": (
            connection.call("/s/Echo", b"", KEY, metadata=[("grpc-timeout", "1s")]),
            3,
            "grpc-timeout must be up to eight digits",
        ),
    }
    two = connection.begin("/s/Echo", KEY)
    two.send_data(framed(b"") * 2, end=True)
    bad["two"] = (two, 12, "takes one message, and more were sent")
    part = connection.begin("/s/Echo", KEY)
    part.send_data(framed(b"abc")[:-1], end=True)
    bad["part"] = (part, 13, "ends within a message")
    flag = connection.begin("/s/Echo", KEY)
    flag.send_data(b"\2\0\0\0\0", end=True)
    bad["flag"] = (flag, 13, "must be 0 or 1, not 2")
    compressed = connection.begin("/s/Echo", KEY)
    compressed.send_data(b"\1\0\0\0\0", end=True)
    bad["compressed"] = (compressed, 13, "compressed, but the call has no grpc-encoding")
    for name, (call, code, text) in bad.items():
        assert (call.code, text in call.text) == (code, True), (name, call.code, call.text)
    assert bad["coding"][0].trailers["grpc-accept-encoding"] == "identity,deflate,gzip"
    assert connection.call("/s/Echo", message(b"x"), KEY).code == 0
    assert len(rig.ends) == len(bad) + 1


@pytest.mark.parametrize("size", [10, 500_000])
def test_a_compressed_message_is_inflated(size: int) -> None:
    rig = Rig()
    connection = rig.connect()
    plain = bytes(range(256)) * size
    data = framed(gzip.compress(message(plain[:size]).SerializeToString(), 1))
    call = connection.begin("/s/Echo", KEY, metadata=[("grpc-encoding", "gzip")])
    call.send_data(b"\1" + data[1:], end=True)
    assert (call.code, values(call)) == (0, [plain[:size]])


def test_the_producer_of_a_stream_pauses_while_the_client_does_not_read() -> None:
    rig = Rig()
    connection = rig.connect()
    connection.reading = False
    call = connection.call("/s/Stream", b"", KEY)
    running, _, done = rig.waiting[0]
    producer = Producer()
    running.registerProducer(producer, True)
    running.send(message(b"x" * 65000))
    paused = [producer.paused]
    running.send(message(b"x" * 70000))
    paused.append(producer.paused)
    rig.advance(0, connection)
    for _ in range(5):
        call.read()
    assert [*paused, producer.paused] == [False, True, False]
    running.unregisterProducer()
    done.callback(None)
    rig.advance(0, connection)
    assert (call.code, [len(value) for value in values(call)]) == (0, [65000, 70000])


def test_http_that_is_no_grpc_is_told_so() -> None:
    rig = Rig()
    connection = rig.connect()
    wrong = connection.begin("/s/Echo", KEY, content_type="application/json")
    get = connection.begin("/s/Echo", KEY, method="GET", end=True)
    assert [wrong.http_status, get.http_status] == [415, 405]
    assert connection.call("/s/Echo", message(b"x"), KEY).code == 0


def test_an_error_of_a_streaming_answer_follows_its_messages() -> None:
    rig = Rig()
    connection = rig.connect()
    call = connection.call("/s/Stream", b"", KEY)
    running, _, done = rig.waiting[0]
    running.send(message(b"first"))
    done.errback(BadRequest("no more"))
    rig.advance(0, connection)
    assert (values(call), call.code, call.text) == ([b"first"], 3, "no more")
