# SPDX-License-Identifier: Apache-2.0
"""What is sent, decoded by libraries that have not encoded it."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived
from hpack import Decoder
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_serve.rpc.engine import wire

NAMES = st.from_regex(rb"[a-z][a-z0-9-]{0,200}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=300))), st.sampled_from([200, 405, 415]))
@example([(b"a", b"x" * size) for size in (126, 127, 128, 254, 255, 256, 20_000, 100_000)], 200)
def test_fields_are_decoded_and_enter_no_table(fields: list[tuple[bytes, bytes]], status: int) -> None:
    decoder = Decoder(max_header_list_size=1 << 20)
    block = wire.NO_TABLE + wire.status_field(status) + wire.fields(fields)
    decoded = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    assert decoded == [(b":status", b"%d" % status), *fields]
    assert decoder.header_table.maxsize == len(decoder.header_table.dynamic_entries) == 0


@given(st.integers(0, 60_000), st.booleans())
@example(wire.LEAST_FRAME, True)
@example(3 * wire.LEAST_FRAME, True)
def test_a_large_header_block_has_frames_that_each_client_takes(size: int, end: bool) -> None:
    client = H2Connection(H2Configuration(header_encoding=None))
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")])
    client.receive_data(wire.settings({}))
    block = wire.STATUS_200 + wire.field(b"x", b"v" * size)
    events = client.receive_data(wire.header_frames(1, block, end))
    (response,) = [event for event in events if isinstance(event, ResponseReceived)]
    assert dict(response.headers)[b"x"] == b"v" * size
    assert (response.stream_ended is not None) == end
