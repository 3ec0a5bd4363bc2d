# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.subcommands.bench.answers`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_serve.subcommands.bench.answers import Answers, BadAnswerError, Ended

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
NOTHING = b"HTTP/1.1 503 Busy\r\ncontent-length:0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSING = b"HTTP/1.1 400 Bad\r\nConnection: Close\r\nContent-Length: 1\r\n\r\nx"

ANSWERS = {
    LENGTH: [Ended(200, True)],
    CHUNKED: [Ended(200, True)],
    EMPTY: [Ended(204, True)],
    NOTHING: [Ended(503, True)],
    CONTINUE: [],
    CLOSING: [Ended(400, False)],
    b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n": [Ended(200, False)],
}


@given(st.lists(st.sampled_from(sorted(ANSWERS)), max_size=6), st.data())
def test_split_anywhere(sent: list[bytes], data: st.DataObject) -> None:
    """Answers in any order, received in any pieces, are found once each, in order."""
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    answers, found = Answers(), list[Ended]()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += answers.feed(stream[begin:end])
    assert found == [ended for each in sent for ended in ANSWERS[each]]
    assert answers.end() is None


def test_up_to_the_end() -> None:
    """An answer without a length ends with the connection."""
    answers = Answers()
    assert answers.feed(b"HTTP/1.1 200 OK\r\n\r\nabc") == []
    assert answers.feed(b"def") == []
    assert answers.end() == Ended(200, False)


def test_cut_off() -> None:
    """An answer that is cut off is none."""
    for whole in (LENGTH, CHUNKED):
        answers = Answers()
        assert answers.feed(whole[:-1]) == []
        assert answers.end() is None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_no_answer(data: bytes) -> None:
    """What is no answer is an error, and an endless line is not buffered."""
    with pytest.raises(BadAnswerError):
        Answers().feed(data)
