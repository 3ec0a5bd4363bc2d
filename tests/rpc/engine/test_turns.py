# SPDX-License-Identifier: Apache-2.0
"""What one read of many small frames costs before other connections get a turn."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BytesValue

from tests.rpc.engine.rig import Rig, message, values
from twisted_serve.rpc.frames import framed
from twisted_serve.testing.rpc import MemoryRpcConnection

MANY = 200
# Far fewer than one read of 64 KB can have.
AT_ONCE = 64

FRAME = framed(message(b"x").SerializeToString())


def test_ends_of_many_requests() -> None:
    """Calls that were begun before, and whose messages come together, are answered in several turns."""
    rig = Rig()
    connection = rig.connect()
    calls = [connection.begin("/s/Echo", "key") for _ in range(MANY)]
    connection._turn = lambda: None
    for call in calls:
        connection.http2.send_data(call.stream, FRAME, end_stream=True)
    connection.flush()
    assert 0 < len(rig.ends) <= AT_ONCE
    rig.advance(0, connection)
    assert all((values(call), call.code) == ([b"x"], 0) for call in calls)


def test_many_messages_of_one_call() -> None:
    """Messages that come each in a frame of its own are delivered in several turns, in their order."""
    rig = Rig()
    connection = MemoryRpcConnection(rig.factory)
    call = connection.begin("/s/Talk", "key")
    (talk,) = rig.talks
    sent = [b"%d" % number for number in range(MANY)]
    for value in sent:
        connection.http2.send_data(call.stream, framed(BytesValue(value=value).SerializeToString()))
    connection.http2.end_stream(call.stream)
    connection.flush()
    assert 0 < len(talk.messages) <= AT_ONCE
    assert not talk.done
    rig.advance(0, connection)
    assert (talk.messages, talk.done) == (sent, 1)


def test_small_frames_of_a_large_message() -> None:
    """A message in small frames arrives whole."""
    rig = Rig()
    connection = MemoryRpcConnection(rig.factory)
    call = connection.begin("/s/Echo", "key")
    data = framed(message(b"y" * 1000).SerializeToString())
    for at in range(0, len(data), 2):
        connection.http2.send_data(call.stream, data[at : at + 2])
    connection.http2.end_stream(call.stream)
    connection.flush()
    rig.advance(0, connection)
    assert (values(call), call.code) == ([b"y" * 1000], 0)


def test_many_small_reads() -> None:
    """Frames that come each in a read by itself, as in records of TLS, take several turns, too."""
    rig = Rig()
    connection = rig.connect()
    calls = [connection.begin("/s/Echo", "key") for _ in range(MANY)]
    records = []
    for call in calls:
        connection.http2.send_data(call.stream, FRAME, end_stream=True)
        records.append(connection.http2.data_to_send())
    for record in records:
        connection.protocol.dataReceived(record)
    assert 0 < len(rig.ends) <= AT_ONCE
    rig.advance(0, connection)
    assert all((values(call), call.code) == ([b"x"], 0) for call in calls)
