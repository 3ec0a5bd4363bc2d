# SPDX-License-Identifier: Apache-2.0
"""Frames that HTTP/2 forbids: what ends the connection, what ends a call, and what is ignored."""

from __future__ import annotations

import pytest

from tests.rpc.engine.raw import FIELDS, RawClient, frame
from tests.rpc.engine.rig import Rig, message, values
from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.wire import Reason, window_update

SETTINGS = wire.SETTINGS
FRAME_SIZE, PROTOCOL, FLOW = Reason.FRAME_SIZE_ERROR, Reason.PROTOCOL_ERROR, Reason.FLOW_CONTROL_ERROR
CALM = Reason.ENHANCE_YOUR_CALM


def setting(name: int, value: int) -> bytes:
    return wire.settings({name: value})


FATAL = {
    "data on stream 0": (frame(wire.DATA, 0, b"x"), PROTOCOL),
    "data on a stream that is idle": (frame(wire.DATA, 3, b"x"), PROTOCOL),
    "data on a stream of the server": (frame(wire.DATA, 2, b"x"), PROTOCOL),
    "data with more padding than data": (frame(wire.DATA, 1, b"\5abc", wire.PADDED), PROTOCOL),
    "data without the length of its padding": (frame(wire.DATA, 1, b"", wire.PADDED), PROTOCOL),
    "large padded data": (frame(wire.DATA, 1, bytes(20000), wire.PADDED), CALM),
    "a frame over the limit": (wire.frame_head((1 << 20) + 1, wire.DATA, 0, 1), FRAME_SIZE),
    "headers on stream 0": (frame(wire.HEADERS, 0, b"", wire.END_HEADERS), PROTOCOL),
    "headers on a stream of the server": (frame(wire.HEADERS, 2, b"", wire.END_HEADERS), PROTOCOL),
    "headers that are too short": (frame(wire.HEADERS, 3, b"abc", wire.END_HEADERS | wire.HAS_PRIORITY), FRAME_SIZE),
    "headers that no one can decode": (frame(wire.HEADERS, 3, b"\xff\xff", wire.END_HEADERS), Reason.COMPRESSION_ERROR),
    "a priority without a stream": (frame(wire.PRIORITY, 0, bytes(5)), PROTOCOL),
    "a priority of four bytes": (frame(wire.PRIORITY, 1, bytes(4)), FRAME_SIZE),
    "a reset without a stream": (frame(wire.RST_STREAM, 0, bytes(4)), PROTOCOL),
    "a reset of a stream that is idle": (frame(wire.RST_STREAM, 5, bytes(4)), PROTOCOL),
    "a reset of three bytes": (frame(wire.RST_STREAM, 1, bytes(3)), FRAME_SIZE),
    "settings of a stream": (frame(SETTINGS, 1), PROTOCOL),
    "settings of seven bytes": (frame(SETTINGS, 0, bytes(7)), FRAME_SIZE),
    "an acknowledgement with settings": (frame(SETTINGS, 0, bytes(6), wire.ACK), FRAME_SIZE),
    "a window above the limit": (setting(wire.INITIAL_WINDOW_SIZE, 1 << 31), FLOW),
    "frames below the limit": (setting(wire.MAX_FRAME_SIZE, 16383), PROTOCOL),
    "frames above the limit": (setting(wire.MAX_FRAME_SIZE, 1 << 24), PROTOCOL),
    "a push that is neither on nor off": (setting(wire.ENABLE_PUSH, 2), PROTOCOL),
    "a push": (frame(wire.PUSH_PROMISE, 1, bytes(8)), PROTOCOL),
    "a ping of a stream": (frame(wire.PING, 1, bytes(8)), PROTOCOL),
    "a ping of seven bytes": (frame(wire.PING, 0, bytes(7)), FRAME_SIZE),
    "GOAWAY of a stream": (frame(wire.GOAWAY, 1, bytes(8)), PROTOCOL),
    "GOAWAY of seven bytes": (frame(wire.GOAWAY, 0, bytes(7)), FRAME_SIZE),
    "a window that opens by nothing": (window_update(0, 0), PROTOCOL),
    "a window of the connection above the limit": (window_update(0, wire.MOST), FLOW),
    "a window of a stream that is idle": (window_update(5, 1), PROTOCOL),
    "a window update of three bytes": (frame(wire.WINDOW_UPDATE, 0, bytes(3)), FRAME_SIZE),
    "a naked continuation": (frame(wire.CONTINUATION, 1, b"", wire.END_HEADERS), PROTOCOL),
    "a frame within a header block": (frame(wire.HEADERS, 3) + frame(wire.PING, 0, bytes(8)), PROTOCOL),
    "a header block within another": (frame(wire.HEADERS, 3) + frame(wire.HEADERS, 5), PROTOCOL),
    "data within a header block": (frame(wire.HEADERS, 3) + frame(wire.DATA, 1, b"x"), PROTOCOL),
    "an unknown frame within a header block": (frame(wire.HEADERS, 3) + frame(99, 0), PROTOCOL),
    "a continuation of another block": (frame(wire.HEADERS, 3) + frame(wire.CONTINUATION, 5), PROTOCOL),
    "a large frame of an unknown type": (frame(99, 0, bytes(20000)), CALM),
    "large settings": (wire.frame_head(20000, SETTINGS, 0, 0), CALM),
}


@pytest.mark.parametrize("name", FATAL)
def test_ends_the_connection(name: str) -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    other = rig.connect().call("/s/Wait", b"", "key")
    data, reason = FATAL[name]
    client.send(data)
    going = client.going()
    assert going is not None
    assert going[0] is reason
    assert not client.is_open()
    assert rig.codes == ["CANCELLED"]
    assert not other.over


IGNORED = {
    "an unknown frame": frame(99, 7, b"anything", 0xFF),
    "a priority of a stream that is idle": frame(wire.PRIORITY, 9, bytes(5)),
    "unknown settings": setting(0xFFFF, 7),
    "a table of the client": setting(wire.HEADER_TABLE_SIZE, 0),
    "an acknowledged ping that was not sent": frame(wire.PING, 0, b"whatever", wire.ACK),
    "acknowledged settings": frame(SETTINGS, 0, b"", wire.ACK),
    "empty data": frame(wire.DATA, 1),
    "padded data": frame(wire.DATA, 1, b"\5\0\0\0\0\1" + b"\0" * 5, wire.PADDED),
    "only padding": frame(wire.DATA, 1, b"\3abc", wire.PADDED),
    "a window": window_update(1, 1),
    "a window of the connection": window_update(0, 1),
}


@pytest.mark.parametrize("name", IGNORED)
def test_is_ignored(name: str) -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1, pseudo_path="/s/Echo")
    client.send(IGNORED[name])
    client.begin(3)
    assert (client.going(), client.is_open(), rig.codes) == (None, True, [])


STREAM = {
    "data after the end": (frame(wire.DATA, 1, b"x"), Reason.STREAM_CLOSED),
    "trailers after the end": (None, Reason.STREAM_CLOSED),
    "a window that opens by nothing": (window_update(1, 0), PROTOCOL),
    "a window above the limit": (window_update(1, wire.MOST), FLOW),
}


@pytest.mark.parametrize("name", STREAM)
def test_ends_the_call(name: str) -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    client.send(frame(wire.DATA, 1, b"\0" * 5, wire.END_STREAM))
    client.begin(3)
    data, reason = STREAM[name]
    end = wire.END_STREAM | wire.END_HEADERS
    client.send(data or frame(wire.HEADERS, 1, client.encode([("x", "y")]), end))
    assert client.resets() == {1: reason}
    assert (rig.codes, rig.cancelled, client.is_open()) == (["INTERNAL"], 1, True)


def test_more_data_than_the_window_of_the_stream() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    client.send(frame(wire.DATA, 1, b"\0\0\0\xff\xff" + bytes(65530)))
    assert client.resets() == {}
    client.send(frame(wire.DATA, 1, bytes(10)))
    # The window was opened by what the message lacked, five bytes.
    assert client.resets() == {1: FLOW}


def test_more_data_than_the_window_of_the_connection() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1, pseudo_path="/s/Nothing")
    # Refused, so that its data is counted for the connection alone; updates come after half of its window.
    sent = 0
    while sent < 100 << 20 and client.is_open():
        client.send(frame(wire.DATA, 1, bytes(1 << 20)))
        sent += 1 << 20
        assert client.going() is None
    assert sent == 100 << 20
    client.send(b"".join(frame(wire.DATA, 1, bytes(1 << 20)) for _ in range(5)))
    going = client.going()
    assert going is not None
    assert going[0] is FLOW


def test_trailers_end_the_client_s_side() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    client.send(frame(wire.DATA, 1, b"\0" * 5))
    client.send(frame(wire.HEADERS, 1, client.encode([("x", "y")]), wire.END_HEADERS | wire.END_STREAM))
    assert len(rig.waiting) == 1
    client.begin(3)
    client.send(frame(wire.HEADERS, 3, client.encode([("x", "y")]), wire.END_HEADERS))
    assert client.resets() == {3: PROTOCOL}


@pytest.mark.parametrize(
    "fields",
    [
        {"pseudo_path": None},
        {"pseudo_path": ""},
        {"pseudo_method": None},
        {"pseudo_scheme": None},
        {"pseudo_status": "200"},
        {"connection": "close"},
        {"transfer_encoding": "chunked"},
        {"upgrade": "h2c"},
        {"X": "upper case"},
        {"a b": "blank"},
        {"a:b": "colon"},
        {"": "no name"},
        {"x": "a\nb"},
        {"x": "a\rb"},
        {"x": "a\0b"},
        {"pseudo_path": "/s/Wait\n"},
    ],
    ids=str,
)
def test_malformed_fields_reset_their_stream(fields: dict[str, str | None]) -> None:
    rig = Rig()
    client = RawClient(rig)
    client.send(frame(wire.HEADERS, 1, client.block(**fields), wire.END_HEADERS))
    client.begin(3)
    assert client.resets() == {1: PROTOCOL}
    assert (client.is_open(), rig.door.asked) == (True, [(b"/s/Wait", (b"Bearer key",))])


@pytest.mark.parametrize(
    "fields",
    [
        [("te", "trailers"), (":method", "POST"), (":scheme", "http"), (":path", "/s/Wait")],
        [(":method", "POST"), (":method", "POST"), (":scheme", "http"), (":path", "/s/Wait")],
        [],
    ],
)
def test_malformed_order_resets_the_stream(fields: list[tuple[str, str]]) -> None:
    client = RawClient(Rig())
    client.send(frame(wire.HEADERS, 1, client.encode(fields), wire.END_HEADERS))
    assert client.resets() == {1: PROTOCOL}


def test_the_first_frame_is_settings() -> None:
    for data in (frame(wire.PING, 0, bytes(8)), frame(SETTINGS, 0, b"", wire.ACK), frame(wire.DATA, 1, b"x")):
        client = RawClient(Rig(), greets=False)
        client.send(wire.PREFACE, data)
        assert client.going() == (PROTOCOL, "the first frame is not SETTINGS")
        assert not client.is_open()


def test_streams_over_the_number_are_refused() -> None:
    rig = Rig(streams=3)
    client = RawClient(rig)
    for stream in range(1, 11, 2):
        client.begin(stream)
    assert client.resets() == {7: Reason.REFUSED_STREAM, 9: Reason.REFUSED_STREAM}
    client.send(wire.reset(1, Reason.CANCEL))
    client.begin(11)
    assert (client.resets(), rig.codes, client.is_open()) == ({}, ["CANCELLED"], True)


def test_a_header_list_over_the_limit_ends_its_call_only() -> None:
    rig = Rig(headers=1000)
    connection = rig.connect()
    waiting = connection.call("/s/Wait", b"", "key")
    large = connection.call("/s/Echo", message(b"x"), "key", metadata=[("a", "x" * 2000)])
    assert (large.code, "bytes, more than 1000 (max_header_size)." in large.text) == (8, True)
    refused = connection.call("/s/Echo", message(b"x"), metadata=[("a", "x" * 2000)])
    assert refused.code == 7
    rig.answer(b"answer", connection)
    assert values(waiting) == [b"answer"]
    assert [end.metadata for end in rig.ends[:2]] == [(), ()]


@pytest.mark.parametrize("count", [1, 40])
def test_a_header_list_far_over_the_limit_ends_the_connection(count: int) -> None:
    rig = Rig(headers=1000)
    client = RawClient(rig)
    # References to one entry of the table: few bytes make a long list.
    client.send(frame(wire.HEADERS, 1, client.encode([*FIELDS.items(), *[("a", "x" * 500)] * count]), wire.END_HEADERS))
    going = client.going()
    if count == 1:
        assert going is None
    else:
        assert going == (Reason.COMPRESSION_ERROR, "a header block cannot be decoded, or is too large")


def test_a_header_block_may_have_several_frames() -> None:
    rig = Rig()
    client = RawClient(rig)
    block = client.block()
    client.send(frame(wire.HEADERS, 1, block[:10], wire.END_STREAM), frame(wire.CONTINUATION, 1, block[10:20]))
    assert rig.door.asked == []
    client.send(frame(wire.CONTINUATION, 1, block[20:], wire.END_HEADERS))
    assert (len(rig.door.asked), rig.codes) == (1, ["UNIMPLEMENTED"])


@pytest.mark.parametrize("piece", [b"", b"x" * 16000])
def test_a_flood_of_continuations_ends_the_connection(piece: bytes) -> None:
    client = RawClient(Rig())
    client.send(frame(wire.HEADERS, 1))
    sent = 0
    while client.is_open() and sent < 100:
        client.send(frame(wire.CONTINUATION, 1, piece))
        sent += 1
    assert sent < 65
    assert client.going() == (CALM, "a header block is too large")


FLOODS = {
    "resets": None,
    "settings": frame(SETTINGS, 0),
    "empty data": frame(wire.DATA, 1),
    "priorities": frame(wire.PRIORITY, 1, bytes(5)),
    "unknown frames": frame(99, 0),
    "acknowledged pings": frame(wire.PING, 0, bytes(8), wire.ACK),
    "GOAWAY": frame(wire.GOAWAY, 0, bytes(8)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_cheap_frames_ends_the_connection(name: str) -> None:
    rig = Rig(resets=50, resets_per_second=10)
    client = RawClient(rig)
    client.begin(1)
    stream = 3

    def flood(count: int) -> None:
        nonlocal stream
        for _ in range(count):
            if name == "resets":
                client.begin(stream)
                client.send(wire.reset(stream, Reason.CANCEL))
                stream += 2
            else:
                client.send(FLOODS[name] or b"")

    flood(48)
    assert client.is_open()
    # The tokens come back.
    rig.advance(4.0)
    flood(40)
    assert (client.is_open(), client.going()) == (True, None)
    flood(15)
    assert not client.is_open()
    assert client.going() == (CALM, "too many frames that only make work")
    assert set(rig.codes) == {"CANCELLED"}


def test_many_settings_of_a_frame_are_little_work() -> None:
    """Each change of the window would be made in all streams."""
    rig = Rig(streams=100, resets=1000)
    client = RawClient(rig)
    for stream in range(1, 201, 2):
        client.begin(stream)
    changes = b"".join(bytes([0, 4]) + (65535 + n % 2).to_bytes(4, "big") for n in range(2000))
    client.send(frame(SETTINGS, 0, changes))
    assert client.is_open()
    for _ in range(80):
        client.send(setting(wire.INITIAL_WINDOW_SIZE, 65535))
    assert client.going() == (CALM, "too many frames that only make work")


def test_a_smaller_window_may_be_below_zero() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1, pseudo_path="/s/Stream")
    client.send(frame(wire.DATA, 1, b"\0" * 5, wire.END_STREAM))
    running, _, _ = rig.waiting[0]
    running.send(message(b"x" * 60000))
    client.frames()
    client.send(setting(wire.INITIAL_WINDOW_SIZE, 100))
    running.send(message(b"y" * 50))
    client.send(window_update(1, 59000))
    assert [kind for kind, *_ in client.frames()] == [SETTINGS]
    client.send(window_update(1, 2000))
    assert [kind for kind, *_ in client.frames()] == [wire.DATA]


def test_a_window_that_settings_make_too_large() -> None:
    rig = Rig()
    client = RawClient(rig)
    client.begin(1)
    client.send(window_update(1, wire.MOST - 65535))
    assert client.is_open()
    client.send(setting(wire.INITIAL_WINDOW_SIZE, 65536))
    assert client.going() == (FLOW, "INITIAL_WINDOW_SIZE makes a window too large")
