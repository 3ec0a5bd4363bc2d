# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.wire.codec`."""

from __future__ import annotations

import contextlib
import tracemalloc

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.strategies.wire import chunkings, from_worker, messages, to_worker
from twisted_serve.wire import codec
from twisted_serve.wire.codec import (
    FrameReader,
    UnsendableError,
    WireError,
    encode,
    encode_apart,
    server_reader,
    worker_reader,
)
from twisted_serve.wire.messages import Cancel, FromWorker, Loaded, LoadFailed, LoadModel, ToWorker

# Array and map headers of MessagePack which announce four thousand million members.
HUGE_ARRAY, HUGE_MAP = b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


class RoundTripTests(SynchronousTestCase):
    """Every encoded message is decoded unchanged."""

    def _arrives(self, reader: FrameReader[ToWorker] | FrameReader[FromWorker], pieces: list[bytes]) -> list[object]:
        found: list[object] = []
        for piece in pieces:
            reader.receive(piece)
            found.extend(reader.messages())
        return found

    @given(st.data(), st.lists(to_worker(), max_size=4))
    def test_to_worker(self, data: st.DataObject, sent: list[ToWorker]) -> None:
        """What the server says arrives, in order, however the transport cuts it."""
        pieces = data.draw(chunkings(b"".join(encode(each) for each in sent)))
        self.assertEqual(self._arrives(worker_reader(), pieces), sent)

    @given(st.data(), st.lists(from_worker(), max_size=4))
    def test_from_worker(self, data: st.DataObject, sent: list[FromWorker]) -> None:
        """What a worker says arrives, in order, however the transport cuts it."""
        pieces = data.draw(chunkings(b"".join(encode(each) for each in sent)))
        self.assertEqual(self._arrives(server_reader(), pieces), sent)

    def test_reader_stops_early(self) -> None:
        """Messages that were not asked for yet are still there later, once."""
        reader = server_reader()
        reader.receive(encode(Loaded()) + encode(LoadFailed(500, "no")))
        self.assertEqual(next(reader.messages()), Loaded())
        self.assertEqual(list(reader.messages()), [LoadFailed(500, "no")])
        self.assertEqual(list(reader.messages()), [])


class HostileBytesTests(SynchronousTestCase):
    """Whatever the peer sends, a reader waits for more or refuses it."""

    @given(st.lists(st.binary(max_size=200), max_size=5), st.sampled_from([server_reader, worker_reader]))
    def test_any_bytes(self, pieces: list[bytes], make: object) -> None:
        """Any bytes at all lead to messages, to nothing, or to WireError."""
        assert callable(make)
        reader = make()
        try:
            for piece in pieces:
                reader.receive(piece)
                for message in reader.messages():
                    encode(message)
        except WireError:
            pass

    @given(st.binary(max_size=200))
    @example(b"")
    @example(b"\x81\xa4type\xa7predict")
    @example(b"\x91" * 5000)
    def test_any_payload(self, payload: bytes) -> None:
        """A whole frame is a message or is refused: a reader does not wait when nothing is missing."""
        reader = worker_reader()
        reader.receive(frame(payload))
        with contextlib.suppress(WireError):
            self.assertEqual(len(list(reader.messages())), 1)

    @given(st.data(), messages())
    def test_damaged_message(self, data: st.DataObject, message: ToWorker | FromWorker) -> None:
        """A message with one wrong byte in its payload is another message or is refused."""
        damaged = bytearray(encode(message))
        position = data.draw(st.integers(4, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
        for reader in (server_reader(), worker_reader()):
            reader.receive(damaged)
            with contextlib.suppress(WireError):
                list(reader.messages())

    @given(st.integers(101, 2**32 - 1), st.binary(max_size=50))
    def test_long_frame(self, length: int, beginning: bytes) -> None:
        """A frame which announces more than the limit is refused before it has come."""
        reader = server_reader(max_frame=100)
        reader.receive(length.to_bytes(4, "big") + beginning)
        with self.assertRaises(WireError) as raised:
            list(reader.messages())
        self.assertIn(str(length), str(raised.exception))

    def test_frame_at_limit(self) -> None:
        """A frame of exactly the limit is read."""
        data = encode(Loaded())
        reader = server_reader(max_frame=len(data) - 4)
        reader.receive(data)
        self.assertEqual(list(reader.messages()), [Loaded()])

    def test_announced_members(self) -> None:
        """A small frame which announces millions of members costs no memory."""
        payloads = [
            b"\x83\xa4type\xa9predicted\xa8batch_id\x01\xa5items" + HUGE_ARRAY,
            b"\x82\xa4type\xa7predict\xa4jobs" + HUGE_ARRAY,
            b"\x82\xa4type\xa4load\xa8manifest" + HUGE_MAP,
            b"\x82\xa4type\xa4load\xa8manifest\x81\xa1a" + HUGE_ARRAY,
        ]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for payload in payloads:
            for reader in (server_reader(), worker_reader()):
                reader.receive(frame(payload))
                self.assertRaises(WireError, list, reader.messages())
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)

    def test_other_direction(self) -> None:
        """A worker that speaks the server's part is refused."""
        reader = server_reader()
        reader.receive(encode(Cancel(["r"])))
        self.assertRaises(WireError, list, reader.messages())

    def test_stays_refused(self) -> None:
        """After a frame that was refused nothing else is read; what came before it is delivered once."""
        reader = server_reader()
        reader.receive(encode(Loaded()) + frame(b"\xc1") + encode(Loaded()))
        messages = reader.messages()
        self.assertEqual(next(messages), Loaded())
        self.assertRaises(WireError, next, messages)
        self.assertRaises(WireError, list, reader.messages())

    def test_deep_nesting(self) -> None:
        """A manifest nested beyond all measure is refused like any other nonsense."""
        reader = worker_reader()
        reader.receive(frame(b"\x82\xa4type\xa4load\xa8manifest\x81\xa1a" + b"\x91" * 200_000))
        self.assertRaises(WireError, list, reader.messages())


class EncodeTests(SynchronousTestCase):
    """Tests for `encode`."""

    def test_apart(self) -> None:
        """The two parts of a large frame are the frame."""
        message = LoadFailed(507, "x" * 100_000)
        length, payload = encode_apart(message)
        self.assertEqual(len(length), 4)
        self.assertEqual(length + payload, encode(message))

    def test_layout(self) -> None:
        """A frame is four bytes of length, the highest first, and MessagePack."""
        data = encode(LoadFailed(507, "System out of memory"))
        self.assertEqual(int.from_bytes(data[:4], "big"), len(data) - 4)
        fields = {"type": "load-failed", "code": 507, "reason": "System out of memory", "printed": False}
        self.assertEqual(msgspec.msgpack.decode(data[4:]), fields)

    @given(
        st.sampled_from(
            [{"a": 2**64}, {"a": [-(2**63) - 1]}, {"a": object()}, {"a": "\ud800"}, {"\udfff": 1}, {"a": {(): 1j}}]
        )
    )
    def test_no_form(self, manifest: dict[str, object]) -> None:
        """What MessagePack cannot say is refused, and the refusal names the message."""
        message = LoadModel("m", "1.0", "/", "h.py", 1, manifest, {}, "0")
        with self.assertRaises(UnsendableError) as raised:
            encode(message)
        self.assertIn("LoadModel", str(raised.exception))

    def test_too_long(self) -> None:
        """What no reader would believe is not sent."""
        self.patch(codec, "MAX_FRAME", 20)
        self.assertRaises(UnsendableError, encode, LoadFailed(500, "x" * 20))
        self.assertEqual(encode(Loaded())[4:], msgspec.msgpack.encode({"type": "loaded"}))
