# SPDX-License-Identifier: Apache-2.0
"""Tests for the heads that are kept: a connection with them decodes what one without them does."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hpack.struct import HeaderTuple, NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, sampled_from, tuples

from twisted_serve.rpc.engine.heads import HeadDecoder, Malformed

LIMIT = 10240

FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/package.Service/Method"),
    (b"content-type", b"application/grpc"),
]


def block(encoder: Encoder, *more: tuple[bytes, bytes], secret: bytes | None = None) -> bytes:
    """Encode a head; a secret enters no table, as clients send it."""
    fields = [HeaderTuple(*each) for each in (*FIELDS, *more)]
    if secret is not None:
        fields.append(NeverIndexedHeaderTuple(b"authorization", secret))
    return bytes(encoder.encode(fields))


def test_kept() -> None:
    """A block with a key, which is a literal in each, is decoded once; another key is not taken for it."""
    encoder, decoder = Encoder(), HeadDecoder(LIMIT)
    first = decoder.head(block(encoder, secret=b"Bearer one"))
    again = block(encoder, secret=b"Bearer one")
    second = decoder.head(again)
    assert decoder.head(again) is second
    assert second == first
    assert decoder.head(block(encoder, secret=b"Bearer two")).authorization == (b"Bearer two",)


def test_not_kept_when_the_table_changes() -> None:
    """The same bytes mean something else after a new entry of the table."""
    encoder, decoder = Encoder(), HeadDecoder(LIMIT)
    decoder.head(block(encoder, (b"x-first", b"1")))
    reference = block(encoder, (b"x-first", b"1"))
    assert dict(decoder.head(reference).metadata)[b"x-first"] == b"1"
    # Its entry takes the place at the front of the table, so that all references point elsewhere.
    changing = block(encoder, (b"x-second", b"2"))
    assert dict(decoder.head(changing).metadata)[b"x-second"] == b"2"
    with pytest.raises(Malformed):
        decoder.head(reference)
    moved = block(encoder, (b"x-first", b"1"))
    assert decoder.head(moved) is decoder.head(moved)
    # Trailers change the table, too.
    decoder.skip(bytes(encoder.encode([(b"x-third", b"3")])))
    with pytest.raises(Malformed):
        decoder.head(moved)


def test_large_heads_are_not_kept() -> None:
    """Blocks that references to the table make large, and large blocks, are decoded each time."""
    encoder, decoder = Encoder(), HeadDecoder(LIMIT)
    decoder.head(block(encoder, (b"x-large", b"v" * 2000)))
    short = block(encoder, (b"x-large", b"v" * 2000), (b"x-large", b"v" * 2000))
    assert len(short) < 100
    assert decoder.head(short) is not decoder.head(short)
    long = block(encoder, secret=bytes(range(128, 256)) * 30)
    assert decoder.head(long) is not decoder.head(long)


@given(
    lists(
        tuples(
            integers(0, 4), sampled_from([b"", b"1", b"22", b"a" * 200]), booleans(), sampled_from([None, 0, 150, 4096])
        ),
        max_size=30,
    )
)
def test_as_without(calls: list[tuple[int, bytes, bool, int | None]]) -> None:
    """Whatever a client has in its table, and however large that is, each head is what a fresh decoding gives."""
    encoder = Encoder()
    keeping, fresh = HeadDecoder(LIMIT), HeadDecoder(LIMIT)
    for name, value, secret, size in calls:
        if size is not None:
            encoder.header_table_size = size
        sent = block(encoder, (b"x-%d" % name, value), secret=value if secret else None)
        fresh._kept.clear()
        for _ in range(2):
            assert keeping.head(sent) == fresh.head(sent)
            fresh._kept.clear()
            # Only a block that changes nothing can be sent again.
            sent = block(encoder, (b"x-%d" % name, value), secret=value if secret else None)
