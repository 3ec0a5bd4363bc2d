# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.wire.large_frames`, and for the reader of frames that uses it."""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.wire.codec import FrameReader, WireError, encode, worker_reader
from twisted_serve.wire.messages import Cancel, Job, Part, Predict, ToWorker

LARGER = 1000


def predict(number: int, size: int) -> Predict:
    return Predict(number, [Job("r", {}, [Part("body", "", bytes([number % 256]) * size)])])


def read_all(reader: FrameReader[ToWorker], data: bytes, pieces: list[int]) -> list[ToWorker]:
    """Return the messages of what is read in pieces of at most these sizes, in turn."""
    found: list[ToWorker] = []
    stream, sizes = BytesIO(data), cycle(pieces)
    while stream.tell() < len(data):
        size = next(sizes)
        if reader.receive_in_place(lambda room, size=size: stream.readinto(room[:size]), LARGER) is None:  # type: ignore[misc]
            reader.receive(stream.read(size))
        found.extend(reader.messages())
    return found


class InPlaceTests(SynchronousTestCase):
    """Tests for reading in place."""

    @given(
        st.lists(st.integers(0, 5 * LARGER), min_size=1, max_size=6),
        st.lists(st.integers(1, 2 * LARGER), min_size=1, max_size=8),
    )
    def test_any_sizes(self, sizes: list[int], pieces: list[int]) -> None:
        """Messages of any sizes arrive in order, whatever is read at a time."""
        sent: list[ToWorker] = []
        for number, size in enumerate(sizes):
            sent += [predict(number, size), Cancel([str(number)])]
        self.assertEqual(read_all(worker_reader(), b"".join(map(encode, sent)), pieces), sent)

    def test_given_instead(self) -> None:
        """What is given to the reader while a large payload arrives belongs to it, and what follows does not."""
        reader, data = worker_reader(), encode(predict(1, 5000)) + encode(Cancel(["r"]))
        reader.receive(data[:100])
        self.assertEqual(list(reader.messages()), [])
        self.assertEqual(reader.receive_in_place(lambda room: 0, LARGER), 0)
        reader.receive(data[100:])
        self.assertEqual(list(reader.messages()), [predict(1, 5000), Cancel(["r"])])

    def test_larger_than_is_kept(self) -> None:
        """A message of many megabytes arrives, and the next one."""
        sent: list[ToWorker] = [predict(1, 9 << 20), predict(2, 3 << 20), predict(3, 2)]
        self.assertEqual(read_all(worker_reader(), b"".join(map(encode, sent)), [1 << 20]), sent)

    def test_announced(self) -> None:
        """A length that is only announced takes little memory."""
        reader = worker_reader()
        reader.receive((1 << 31).to_bytes(4, "big") + b"\x81")
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual(list(reader.messages()), [])
        reader.receive_in_place(lambda room: 0, LARGER)
        self.assertLess(tracemalloc.get_traced_memory()[1], 3 << 20)

    def test_too_long(self) -> None:
        """A frame over the limit is refused."""
        reader = worker_reader()
        reader.max_frame = 5000
        reader.receive((5001).to_bytes(4, "big") + b"\x81")
        self.assertRaises(WireError, reader.receive_in_place, len, LARGER)

    def test_nonsense(self) -> None:
        """A large payload that is no message is refused, and stays refused."""
        reader = worker_reader()
        self.assertRaises(WireError, read_all, reader, (5000).to_bytes(4, "big") + b"\xc1" * 5000, [700])
        self.assertRaises(WireError, list, reader.messages())
