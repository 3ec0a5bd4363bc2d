# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.wire.large_values`."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.strategies.wire import from_worker, to_worker
from twisted_serve.wire.codec import encode, encode_apart
from twisted_serve.wire.large_values import LARGE, large_pieces
from twisted_serve.wire.messages import (
    FromWorker,
    Item,
    Job,
    Part,
    Predict,
    Predicted,
    Reading,
    StreamChunk,
    ToWorker,
)

BIG = bytes(LARGE + 1)


def enlarged(message: ToWorker | FromWorker, draw: st.DataObject) -> ToWorker | FromWorker:
    """Return the message with some of its bodies replaced by large ones."""

    def body_of(body: bytes) -> bytes:
        return BIG + body if draw.draw(st.booleans()) else body

    if isinstance(message, Predict):
        jobs = [
            replace(job, parts=[replace(part, value=body_of(part.value)) for part in job.parts]) for job in message.jobs
        ]
        return replace(message, jobs=jobs)
    if isinstance(message, Predicted):
        return replace(message, items=[replace(item, body=body_of(item.body)) for item in message.items])
    if isinstance(message, StreamChunk):
        return replace(message, item=replace(message.item, body=body_of(message.item.body)))
    return message


class PiecesTests(SynchronousTestCase):
    """Tests for `large_pieces` and the frames made of them."""

    def same(self, message: ToWorker | FromWorker) -> list[bytes]:
        """Assert that the pieces are what msgspec makes of the message, and return them."""
        payload = msgspec.msgpack.encode(message)
        pieces = encode_apart(message)
        self.assertEqual(b"".join(pieces), len(payload).to_bytes(4, "big") + payload)
        self.assertEqual(b"".join(pieces), encode(message))
        return pieces

    @given(st.data(), st.one_of(to_worker(), from_worker()))
    def test_any_message(self, data: st.DataObject, message: ToWorker | FromWorker) -> None:
        """The pieces, joined, are the frame that the message has always had."""
        self.same(enlarged(message, data))

    def test_not_copied(self) -> None:
        """Large bodies are pieces of their own; small ones are not."""
        parts = [Part("a", "", BIG), Part("b", "", b"small"), Part("c", "", BIG, decode=False)]
        pieces = self.same(Predict(7, [Job("r", {"h": "v"}, parts), Job("s", {}, [])]))
        self.assertEqual([True for piece in pieces if piece is BIG], [True, True])
        self.assertEqual(len(pieces), 6)

    def test_answers(self) -> None:
        """The items of an answer come before its metrics, whether these are there or not."""
        item = Item("r", 200, "", {"a": "b"}, BIG, more=True, flaw="f" * 40)
        reading = Reading("n", "u", 1.0, "l", "COUNTER", "h", 1, "r")
        for answer in (
            Predicted(7, [item]),
            Predicted(7, [item], 0.5),
            Predicted(1 << 40, [item, Item("s", 200, "", {}, b"")] * 20, 0.5, [reading]),
            StreamChunk(7, item),
        ):
            self.assertGreater(len(self.same(answer)), 3)

    def test_threshold(self) -> None:
        """A body of exactly the limit is not large."""
        self.assertIsNone(large_pieces(StreamChunk(1, Item("r", 200, "", {}, BIG[1:]))))

    def test_many(self) -> None:
        """Long arrays begin as MessagePack has them."""
        for count in (15, 16, 65535, 65536):
            items = [Item("", 0, "", {}, b"")] * count
            items[-1] = Item("", 0, "", {}, BIG)
            self.same(Predicted(1, items))
