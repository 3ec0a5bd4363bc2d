# SPDX-License-Identifier: Apache-2.0
"""gRPC's five-byte prefix and its compression."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_serve.errors import CodingNotImplemented, InternalError, RequestTooLarge
from twisted_serve.rpc.frames import MessageReader, coding_of, framed, inflated

LIMIT = 100


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=LIMIT))), st.lists(st.integers(min_value=0)), st.booleans())
def test_messages_come_out_however_their_data_is_split(
    messages: list[tuple[bool, bytes]], cuts: list[int], views: bool
) -> None:
    data = b"".join(bytes([flag]) + framed(message)[1:] for flag, message in messages)
    reader = MessageReader(LIMIT)
    found = [found for part in split(data, cuts) for found in reader.feed(memoryview(part) if views else part)]
    assert found == messages
    assert not reader.is_within


@given(st.binary(max_size=LIMIT), st.integers(min_value=0))
def test_a_message_that_has_begun_is_within(message: bytes, at: int) -> None:
    data = framed(message)
    reader = MessageReader(LIMIT)
    at %= len(data)
    assert list(reader.feed(data[:at])) == []
    assert reader.is_within == (at > 0)
    assert reader.expected == (max(0, len(data) - at) if at >= 5 else 0)


@given(st.integers(LIMIT + 1, 2**32 - 1), st.integers(1, 4))
def test_a_message_over_the_limit_is_refused_at_its_prefix(size: int, at: int) -> None:
    prefix = b"\0" + size.to_bytes(4, "big")
    reader = MessageReader(LIMIT)
    assert list(reader.feed(prefix[:at])) == []
    with pytest.raises(RequestTooLarge, match=f"^The message has {size} bytes, more than {LIMIT} "):
        list(reader.feed(prefix[at:]))


def test_messages_before_the_one_that_is_refused_come_out() -> None:
    feed = MessageReader(LIMIT).feed(framed(b"a") + framed(b"b" * (LIMIT + 1)))
    assert next(feed) == (False, b"a")
    with pytest.raises(RequestTooLarge):
        next(feed)


@given(st.integers(2, 255))
def test_a_flag_is_0_or_1(flag: int) -> None:
    with pytest.raises(InternalError, match=f"must be 0 or 1, not {flag}"):
        list(MessageReader(LIMIT).feed(bytes([flag, 0, 0, 0, 0])))


def test_a_small_part_of_what_was_read_does_not_keep_the_rest() -> None:
    reader = MessageReader(1 << 20)
    assert list(reader.feed(framed(b"x" * 1000)[:5])) == []
    tracemalloc.start()
    for _ in range(100):
        assert list(reader.feed(memoryview(bytes(1 << 16))[:5])) == []
    assert tracemalloc.get_traced_memory()[0] < 1 << 16
    tracemalloc.stop()


@pytest.mark.parametrize(("coding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
class TestInflated:
    @staticmethod
    @given(message=st.binary(max_size=LIMIT))
    def test_a_message_is_as_it_was(coding: bytes, compress, message: bytes) -> None:  # type: ignore[no-untyped-def]
        assert inflated(compress(message), coding, LIMIT) == message

    @staticmethod
    def test_a_bomb_is_refused_after_the_limit(coding: bytes, compress) -> None:  # type: ignore[no-untyped-def]
        bomb = compress(bytes(1 << 26))
        tracemalloc.start()
        with pytest.raises(RequestTooLarge, match="is, inflated, larger than 1000000 bytes"):
            inflated(bomb, coding, 1000000)
        assert tracemalloc.get_traced_memory()[1] < 4000000
        tracemalloc.stop()

    @staticmethod
    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (lambda data: data[:-1], "it breaks off"),
            (lambda data: b"", "it breaks off"),
            (lambda data: data + b"x", "something follows its end"),
            (lambda data: data + data, "something follows its end"),
            (lambda data: b"no" + data, "Error -3"),
        ],
    )
    def test_other_bytes_are_refused(coding: bytes, compress, spoil, why: str) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(InternalError, match=f"^The message is not {coding.decode()}, .*: {why}"):
            inflated(spoil(compress(b"message")), coding, LIMIT)


def test_only_gzip_and_deflate_are_supported() -> None:
    assert [coding_of(value) for value in (b"identity", b"gzip", b"deflate")] == [None, b"gzip", b"deflate"]
    for value in (b"snappy", b"", b"GZIP", b"gzip, deflate"):
        with pytest.raises(CodingNotImplemented, match="identity, deflate and gzip are"):
            coding_of(value)
