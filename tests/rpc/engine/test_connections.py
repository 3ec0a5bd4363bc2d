# SPDX-License-Identifier: Apache-2.0
"""Connections: how they begin, what keeps them, how they end."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from tests.rpc.engine.raw import RawClient, frame
from tests.rpc.engine.rig import Rig, message, unknown, values
from twisted_serve.rpc.contracts import Admitted
from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.reading import MOST_FRAMES_AT_ONCE
from twisted_serve.rpc.engine.wire import Reason
from twisted_serve.rpc.frames import framed

KEY = "key"
PING = frame(wire.PING, 0, bytes(8))


# The beginning


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1\r\n\r\n", b"POST /predictions/m HTTP/1.1\r\n", b"PRI x", b"P\r\n"]
)
def test_http_1_is_told_what_the_port_is(request_line: bytes, split: bool) -> None:
    client = RawClient(Rig(), greets=False)
    for piece in [request_line[at : at + 1] for at in range(len(request_line))] if split else [request_line]:
        client.send(piece)
    answer = client.transport.value()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\nThis port serves gRPC over HTTP/2.\n")
    assert not client.is_open()


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"\0", b"\xff" * 100])
def test_other_protocols_are_closed_without_an_answer(data: bytes) -> None:
    client = RawClient(Rig(), greets=False)
    client.send(data)
    assert (client.transport.value(), client.is_open()) == (b"", False)


@pytest.mark.parametrize("data", [b"", wire.PREFACE[:10], wire.PREFACE, wire.PREFACE + wire.settings({1: 1})[:-1]])
def test_a_client_has_a_time_for_its_preface(data: bytes) -> None:
    rig = Rig(header_timeout=30.0)
    client = RawClient(rig, greets=False)
    client.send(data)
    rig.advance(29.9)
    assert client.is_open()
    rig.advance(0.2)
    assert not client.is_open()
    assert rig.factory.connections == set()


def test_a_client_has_a_time_for_a_header_block() -> None:
    rig = Rig(header_timeout=30.0, stranger_timeout=200.0)
    client = RawClient(rig)
    rig.advance(100)
    client.send(frame(wire.HEADERS, 1))
    for _ in range(3):
        rig.advance(9.9)
        client.send(frame(wire.CONTINUATION, 1))
    assert client.is_open()
    rig.advance(0.4)
    assert not client.is_open()


def test_the_server_says_its_limits() -> None:
    client = RawClient(Rig(streams=7, headers=10240, frame=1 << 18), greets=False)
    # Not before the client has shown that it speaks HTTP/2.
    assert client.frames() == []
    client.send(wire.PREFACE + wire.settings({}))
    (kind, _, _, payload), (update, _, _, increment), _ = client.frames()
    values = {payload[at + 1]: int.from_bytes(payload[at + 2 : at + 6], "big") for at in range(0, len(payload), 6)}
    assert (kind, values) == (wire.SETTINGS, {3: 7, 4: 65535, 5: 1 << 18, 6: 10240})
    assert (update, int.from_bytes(increment, "big")) == (wire.WINDOW_UPDATE, (4 << 20) - 65535)


def test_many_calls_of_a_read_are_handled_in_several_turns() -> None:
    rig = Rig()
    client = RawClient(rig)
    client._connection._turn = lambda: None
    calls = b"".join(frame(wire.HEADERS, stream, client.block(), wire.END_HEADERS) for stream in range(1, 201, 2))
    client.send(calls + PING)
    # The frames with which the client began are counted, too.
    assert MOST_FRAMES_AT_ONCE - 5 < len(rig.door.asked) <= MOST_FRAMES_AT_ONCE
    assert client.transport.producerState == "paused"
    rig.advance(0)
    assert (len(rig.door.asked), client.transport.producerState) == (100, "producing")
    assert (wire.PING, wire.ACK, 0, bytes(8)) in client.frames()


# Pings


def test_pings_are_answered_and_too_many_are_not() -> None:
    rig = Rig()
    client = RawClient(rig)
    for _ in range(3):
        client.send(PING)
        assert client.frames() == [(wire.PING, wire.ACK, 0, bytes(8))]
    client.send(PING)
    assert client.going() == (Reason.ENHANCE_YOUR_CALM, "too_many_pings")
    assert not client.is_open()


def test_pings_between_which_something_was_sent_are_not_counted() -> None:
    rig = Rig()
    connection = rig.connect()
    for _ in range(10):
        assert connection.call("/s/Echo", b"", KEY).code == 0
        for _ in range(3):
            connection.http2.ping(bytes(8))
            connection.flush()
    assert connection.open


@pytest.mark.parametrize(("calls", "seconds", "may"), [(True, 301, True), (True, 299, False), (False, 301, False)])
def test_pings_may_come_every_five_minutes_during_calls(calls: bool, seconds: float, may: bool) -> None:
    rig = Rig(body_timeout=1e6)
    client = RawClient(rig)
    if calls:
        client.begin(1)
    for _ in range(5):
        client.send(PING)
        rig.advance(seconds)
    assert client.is_open() is may


def test_a_silent_client_is_asked_whether_it_is_there() -> None:
    rig = Rig(stranger_timeout=1e6)
    gone, there = RawClient(rig), rig.connect()
    rig.advance(7201, there)
    assert [kind for kind, *_ in gone.frames()] == []
    # What it said in the first hours counts.
    rig.advance(7201, there)
    assert [kind for kind, *_ in gone.frames()] == [wire.PING]
    rig.advance(19.9, there)
    assert gone.is_open()
    rig.advance(0.2, there)
    assert (gone.is_open(), there.open) == (False, True)


def test_an_idle_client_may_stay() -> None:
    rig = Rig()
    connection = rig.connect()
    assert connection.call("/s/Echo", message(b"x"), KEY).code == 0
    for _ in range(100):
        rig.advance(3600, connection)
    assert connection.call("/s/Echo", message(b"x"), KEY).code == 0


# Slow clients


def test_a_message_has_a_time() -> None:
    rig = Rig(body_timeout=300.0)
    connection = rig.connect()
    calls = {"nothing": connection.begin("/s/Echo", KEY), "part": connection.begin("/s/Echo", KEY)}
    calls["part"].send_data(b"\0\0\0\0\5abc")
    calls["no end"] = connection.begin("/s/Echo", KEY)
    calls["no end"].send(b"")
    calls["within"] = connection.begin("/s/Talk", KEY)
    calls["within"].send_data(b"\0\0\0\0\5abc")
    between = connection.begin("/s/Talk", KEY)
    between.send(b"")
    rig.advance(299.9, connection)
    assert not any(call.over for call in calls.values())
    rig.advance(0.2, connection)
    assert {name: call.code for name, call in calls.items()} == dict.fromkeys(calls, 4)
    assert {call.text for call in calls.values()} == {"The request did not arrive in time."}
    assert (between.over, connection.open) == (False, True)


def test_the_time_of_a_message_begins_with_the_message() -> None:
    rig = Rig(body_timeout=300.0)
    connection = rig.connect()
    call = connection.begin("/s/Talk", KEY)
    for _ in range(3):
        rig.advance(1000, connection)
        call.send_data(b"\0\0\0\0\2\x0a")
        rig.advance(299, connection)
        call.send_data(b"\0")
    assert rig.talks[0].messages == [b""] * 3
    assert not call.over


def test_a_client_that_takes_nothing_of_a_call_loses_it() -> None:
    rig = Rig(body_timeout=300.0)
    connection = rig.connect()
    connection.reading = False
    slow, other = connection.call("/s/Stream", b"", KEY), connection.call("/s/Wait", b"", KEY)
    rig.waiting[0][0].send(message(b"x" * 300_000))
    rig.advance(299, connection)
    slow.read()
    rig.advance(299, connection)
    assert (slow.over, rig.cancelled) == (False, 0)
    rig.advance(2, connection)
    assert (slow.reset, rig.cancelled, rig.codes) == (int(Reason.CANCEL), 1, ["CANCELLED"])
    assert (other.over, connection.open) == (False, True)


def test_a_client_that_reads_nothing_is_disconnected() -> None:
    rig = Rig(body_timeout=300.0)
    connection = rig.connect()
    connection.call("/s/Stream", b"", KEY)
    connection.stop_reading()
    rig.waiting[0][0].send(message(b"x" * 100))
    rig.advance(299)
    assert connection.open
    rig.advance(2)
    assert (connection.open, rig.cancelled, rig.codes) == (False, 1, ["CANCELLED"])


def test_a_client_that_reads_again_gets_everything() -> None:
    rig = Rig(body_timeout=300.0)
    connection = rig.connect()
    call = connection.call("/s/Stream", b"", KEY)
    rig.advance(0, connection)
    connection.stop_reading()
    running, _, done = rig.waiting[0]
    for value in (b"a" * 1000, b"b" * 1000):
        running.send(message(value))
    done.callback(None)
    rig.advance(200, connection)
    assert values(call) == []
    connection.read_on()
    rig.advance(200, connection)
    assert (values(call), call.code, connection.open) == ([b"a" * 1000, b"b" * 1000], 0, True)


def test_what_is_buffered_for_a_client_is_bounded() -> None:
    rig = Rig(unsent=1 << 20)
    connection = rig.connect()
    connection.reading = False
    call = connection.call("/s/Stream", b"", KEY)
    running, _, _ = rig.waiting[0]
    for _ in range(20):
        running.send(message(bytes(1 << 16)))
    rig.advance(0, connection)
    assert (call.reset, rig.cancelled, rig.codes) == (int(Reason.ENHANCE_YOUR_CALM), 1, ["RESOURCE_EXHAUSTED"])


def test_a_deadline_also_bounds_what_is_not_taken() -> None:
    rig = Rig()
    connection = rig.connect()
    connection.reading = False
    over, whole = (connection.call("/s/Stream", b"", KEY, timeout=10) for _ in range(2))
    rig.waiting[0][0].send(message(b"x" * 100_000))
    rig.waiting[0][2].callback(None)
    rig.waiting[1][0].send(message(b"x" * 1000))
    rig.advance(11, connection)
    assert (over.reset, whole.code) == (int(Reason.CANCEL), 4)
    assert rig.codes == ["DEADLINE_EXCEEDED"] * 2
    assert [end.whole for end in rig.ends] == [False, True]


def test_a_message_is_not_cut_by_a_status() -> None:
    """A client that has a part of a message would take the status for the rest."""
    rig = Rig()
    connection = rig.connect()
    connection.reading = False
    call = connection.call("/s/Stream", b"", KEY, timeout=10)
    rig.waiting[0][0].send(message(b"x" * 100_000))
    rig.advance(11, connection)
    assert (call.reset, call.code, rig.cancelled) == (int(Reason.CANCEL), None, 1)


def test_nothing_is_kept_for_a_call_that_is_over() -> None:
    rig = Rig()
    connection = rig.connect()
    connection.reading = False
    call = connection.begin("/s/Talk", KEY)
    rig.talks[0].call.send(message(b"x" * 100_000))
    rig.talks[0].call.finish()
    rig.advance(0, connection)
    for _ in range(10):
        call.send(message(b"y" * 1000))
    running = connection.protocol.calls[call.stream]
    assert (running._over, len(running._in._held), rig.talks[0].messages) == (True, 0, [])


def test_a_call_ends_once() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1, pseudo_path="/s/Talk")
    (talk,) = rig.talks
    talk.call.finish()
    talk.call.finish()
    talk.call.fail(unknown())
    talk.call.send(message(b"late"))
    assert rig.codes == ["OK"]
    assert [kind for kind, *_ in client.frames()] == [wire.HEADERS, wire.RST_STREAM]


def test_a_long_call_keeps_a_connection_of_an_unknown_client() -> None:
    rig = Rig(stranger_timeout=75.0)
    rig.door.decision = Admitted(known=False)
    connection = rig.connect()
    connection.call("/s/Wait", b"")
    rig.advance(1000, connection)
    assert connection.going == []
    rig.answer(b"", connection)
    rig.advance(200, connection)
    assert connection.going[0] == (wire.MOST, 0)


# Large messages


def test_large_messages_of_many_calls_come_one_after_another() -> None:
    rig = Rig(granted=1_000_000)
    connection = rig.connect()
    calls = [connection.begin("/s/Echo", KEY) for _ in range(4)]
    data = framed(message(b"x" * 400_000).SerializeToString())

    def granted() -> list[bool]:
        return [connection.http2.local_flow_control_window(call.stream) > 65535 for call in calls]

    for call in calls:
        call.send_data(data[:5])
    assert granted() == [True, True, False, False]
    calls[2].cancel()
    calls[0].send_data(data[5:], end=True)
    assert connection.http2.local_flow_control_window(calls[3].stream) > 65535
    for call in (calls[1], calls[3]):
        call.send_data(data[5:], end=True)
    assert [call.code for call in calls] == [0, 0, None, 0]


def test_a_window_is_opened_once_for_a_large_message() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    client.send(frame(wire.DATA, 1, b"\0" + (1_000_000).to_bytes(4, "big")))
    (update,) = client.frames()
    assert (update[0], update[2], int.from_bytes(update[3], "big")) == (wire.WINDOW_UPDATE, 1, 1_000_000 + 5 - 65535)


def test_a_conversation_that_pauses_holds_its_client_back() -> None:
    rig = Rig()
    connection = rig.connect()
    call = connection.begin("/s/Talk", KEY)
    (talk,) = rig.talks
    talk.call.pause_messages()
    for _ in range(100):
        call.send(message(bytes(10_000)))
    assert talk.messages == []
    assert len(call.unsent) > 100 * 10_000 - 65535
    talk.call.resume_messages()
    rig.advance(0, connection)
    for _ in range(10):
        rig.advance(0, connection)
    assert (len(talk.messages), call.unsent) == (100, b"")


def test_many_small_messages_are_handled_in_several_turns() -> None:
    rig = Rig()
    connection = rig.connect()
    connection._turn = lambda: None
    call = connection.begin("/s/Talk", KEY)
    call.send_data(b"\0\0\0\0\0" * 100)
    call.half_close()
    assert (len(rig.talks[0].messages), rig.talks[0].done) == (32, 0)
    rig.advance(0, connection)
    assert (len(rig.talks[0].messages), rig.talks[0].done) == (100, 1)


def test_many_small_frames_are_handled_in_several_turns() -> None:
    rig = Rig()
    client = RawClient(rig)
    client._connection._turn = lambda: None
    client.begin(1, pseudo_path="/s/Talk")
    client.send(frame(wire.DATA, 1, bytes(5)) * 1000)
    assert len(rig.talks[0].messages) <= MOST_FRAMES_AT_ONCE
    rig.advance(0)
    assert len(rig.talks[0].messages) == 1000


# The end


def test_finish_up_lets_calls_end_and_begins_no_more() -> None:
    rig = Rig()
    idle, busy = rig.connect(), rig.connect()
    call = busy.call("/s/Wait", b"", KEY)
    closed: list[None] = []
    rig.factory.finish_up()
    rig.factory.all_closed(10).addCallback(closed.append)
    for connection in (idle, busy):
        connection.pump()
    assert (idle.going, idle.open) == ([(wire.MOST, 0), (0, 0)], False)
    assert (busy.going, busy.open) == ([(wire.MOST, 0), (1, 0)], True)
    late = busy.begin("/s/Echo", KEY)
    assert late.reset == int(Reason.REFUSED_STREAM)
    assert closed == []
    rig.answer(b"answer", busy)
    assert (call.code, values(call), busy.open, closed) == (0, [b"answer"], False, [None])


def test_calls_on_the_way_are_answered() -> None:
    """A client that has not seen the first GOAWAY may begin calls."""
    rig = Rig()
    client = RawClient(rig)
    rig.factory.finish_up()
    first, ping = client.frames()
    assert (first[0], first[3][:4]) == (wire.GOAWAY, wire.MOST.to_bytes(4, "big"))
    client.begin(1)
    client.send(frame(wire.PING, 0, ping[3], wire.ACK))
    ((_, _, _, second),) = client.frames()
    assert second[:4] == (1).to_bytes(4, "big")
    assert client.is_open()
    client.send(frame(wire.DATA, 1, bytes(5), wire.END_STREAM))
    rig.waiting[0][2].callback(message(b"x"))
    rig.advance(0)
    assert (rig.codes, client.is_open()) == (["OK"], False)


def test_a_client_that_answers_no_ping_is_told_anyway() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    rig.factory.finish_up()
    client.frames()
    rig.advance(5.1)
    client.begin(3)
    assert [frame[0] for frame in client.frames()] == [wire.GOAWAY, wire.RST_STREAM]


def test_connections_that_do_not_end_are_aborted() -> None:
    rig = Rig()
    client, stranger = RawClient(rig), RawClient(rig, greets=False)
    client.begin(1)
    closed: list[None] = []
    rig.factory.finish_up()
    rig.factory.all_closed(10).addCallback(closed.append)
    assert (client.is_open(), stranger.is_open()) == (True, False)
    rig.advance(10.1)
    assert (client.is_open(), closed, rig.codes) == (False, [None], ["CANCELLED"])


def test_all_closed_without_connections() -> None:
    assert Rig().factory.all_closed(10).called


def test_a_client_s_goaway_ends_no_call() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    client.send(frame(wire.DATA, 1, bytes(5), wire.END_STREAM))
    client.send(frame(wire.GOAWAY, 0, bytes(8)))
    assert (client.is_open(), rig.cancelled) == (True, 0)
    rig.waiting[0][2].callback(message(b"x"))
    rig.advance(0)
    assert [frame[0] for frame in client.frames()] == [wire.HEADERS, wire.DATA, wire.HEADERS]
    assert (rig.codes, client.is_open()) == (["OK"], False)


def test_an_idle_client_s_goaway_closes_the_connection() -> None:
    client = RawClient(Rig())
    client.send(frame(wire.GOAWAY, 0, bytes(8)))
    assert not client.is_open()


def test_an_old_connection_ends_gracefully() -> None:
    rig = Rig(age=100.0, grace=50.0)
    connections = [rig.connect() for _ in range(20)]
    calls = [connection.call("/s/Wait", b"", KEY) for connection in connections]
    rig.advance(89.9, *connections)
    assert [connection.going for connection in connections] == [[]] * 20
    aged = []
    for _ in range(5):
        rig.advance(4.05, *connections)
        aged.append(sum(bool(connection.going) for connection in connections))
    assert aged[-1] == 20
    assert not any(call.over for call in calls)
    # Not all at once.
    assert len(set(aged)) > 2
    rig.advance(51, *connections)
    assert [(call.code, call.text) for call in calls] == [(14, "The server closes the connection.")] * 20
    assert (rig.cancelled, rig.factory.connections) == (20, set())


def test_an_old_connection_without_grace_waits_for_its_calls() -> None:
    rig = Rig(age=100.0)
    connection = rig.connect()
    call = connection.call("/s/Wait", b"", KEY)
    rig.advance(10_000, connection)
    rig.answer(b"x", connection)
    assert (call.code, connection.open) == (0, False)


def test_a_refused_client_that_still_sends_is_told_to_stop() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1, authorization=None)
    assert [(kind, flags) for kind, flags, *_ in client.frames()] == [
        (wire.HEADERS, wire.END_HEADERS | wire.END_STREAM),
        (wire.RST_STREAM, 0),
    ]
    # What was on the way is ignored.
    client.send(
        frame(wire.DATA, 1, bytes(100)), frame(wire.DATA, 1, b"", wire.END_STREAM), wire.reset(1, Reason.CANCEL)
    )
    assert (client.frames(), client.is_open()) == ([], True)


def test_a_refused_client_that_has_sent_everything_is_not() -> None:
    rig = Rig()
    client = RawClient(rig)
    block = client.block(authorization=None)
    client.send(frame(wire.HEADERS, 1, block, wire.END_HEADERS), frame(wire.DATA, 1, bytes(5), wire.END_STREAM))
    assert [kind for kind, *_ in client.frames()] == [wire.HEADERS]


def test_a_thread_that_inflates_outlives_its_call() -> None:
    rig = Rig()
    rig.threads = []
    connection = rig.connect()
    call = connection.begin("/s/Echo", KEY, metadata=[("grpc-encoding", "gzip")])
    call.send_data(b"\1\0\0\x13\x88" + bytes(5000), end=True)
    ((_, _, result),) = rig.threads
    assert isinstance(result, Deferred)
    call.cancel()
    assert rig.codes == ["CANCELLED"]
    assert connection.call("/s/Echo", b"", KEY).code == 0


class Reluctant(StringTransport):
    """A transport that cannot close, because its peer does not read."""

    aborted = False
    protocol: Any = None

    def loseConnection(self) -> None:
        pass

    def abortConnection(self) -> None:
        self.aborted = True
        self.protocol.connectionLost()


@pytest.mark.parametrize("way", ["fault", "finish", "stranger"])
def test_a_connection_that_cannot_close_is_aborted(way: str) -> None:
    rig = Rig(header_timeout=30.0)
    transport = Reluctant()
    protocol = transport.protocol = rig.factory.buildProtocol(None)
    protocol.makeConnection(transport)
    if way == "stranger":
        protocol.dataReceived(b"GET /")
    else:
        protocol.dataReceived(wire.PREFACE + wire.settings({}))
    if way == "fault":
        protocol.dataReceived(frame(wire.DATA, 0))
    elif way == "finish":
        protocol.dataReceived(frame(wire.GOAWAY, 0, bytes(8)))
    protocol.dataReceived(PING)
    rig.advance(29.9)
    assert not transport.aborted
    rig.advance(0.2)
    assert (transport.aborted, rig.factory.connections) == (True, set())


def test_what_was_put_off_waits_for_a_client_that_does_not_read() -> None:
    rig = Rig()
    client = RawClient(rig)
    client._connection._turn = lambda: None
    client.send(b"".join(frame(wire.HEADERS, stream, client.block(), wire.END_HEADERS) for stream in range(1, 101, 2)))
    before = len(rig.door.asked)
    assert before < 50
    client._connection.stop_reading()
    rig.advance(1)
    assert len(rig.door.asked) == before
    client._connection.read_on()
    assert client.transport.producerState == "paused"
    rig.advance(0)
    assert (len(rig.door.asked), client.transport.producerState) == (50, "producing")


def test_what_is_no_call_is_answered_within_the_windows() -> None:
    client = RawClient(Rig())
    client.begin(1, content_type="text/html")
    client.send(wire.settings({wire.INITIAL_WINDOW_SIZE: 10}))
    client.begin(3, content_type="text/html")
    assert [(kind, flags, stream) for kind, flags, stream, _ in client.frames() if stream] == [
        (wire.HEADERS, wire.END_HEADERS, 1),
        (wire.DATA, wire.END_STREAM, 1),
        (wire.RST_STREAM, 0, 1),
        (wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 3),
        (wire.RST_STREAM, 0, 3),
    ]


def test_a_conversation_that_cannot_be_cancelled_ends_anyway() -> None:
    rig = Rig()
    connection = rig.connect()
    call = connection.begin("/s/Talk", KEY)

    def cancelled() -> None:
        raise RuntimeError("a bug")

    rig.talks[0].cancelled = cancelled  # type: ignore[method-assign]
    call.cancel()
    assert rig.codes == ["CANCELLED"]
    assert connection.call("/s/Echo", b"", KEY).code == 0


def test_a_conversation_that_raises_ends_with_an_error() -> None:
    rig = Rig()
    connection = rig.connect()
    call = connection.begin("/s/Talk", KEY)
    call.send(message(b"raise"))
    assert (call.code, call.text, rig.talks[0].gone) == (13, "Internal server error.", 1)
    assert connection.open
