# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.channel`."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.backend.channel import Channel
from twisted_serve.wire.codec import WireError, encode, server_reader
from twisted_serve.wire.messages import Cancel, Loaded, LoadModel, Predict, ToWorker

LOAD = LoadModel("m", "1.0", "/", "h.py", 1, {}, {}, "0")


class ChannelTests(SynchronousTestCase):
    """The worker's end of a socket, its other end filled beforehand."""

    def setUp(self) -> None:
        self.server, worker = socket.socketpair()
        self.addCleanup(self.server.close)
        self.addCleanup(worker.close)
        self.channel = Channel(worker)

    def _say(self, *messages: ToWorker) -> None:
        self.server.sendall(b"".join(encode(each) for each in messages))

    def test_in_order(self) -> None:
        """Messages are received in order, then the end."""
        self._say(LOAD, Predict(1, []), Predict(2, []))
        self.server.shutdown(socket.SHUT_WR)
        received = [self.channel.receive() for _ in range(5)]
        self.assertEqual(received, [LOAD, Predict(1, []), Predict(2, []), None, None])

    def test_cancel(self) -> None:
        """A cancellation is not received but known, as soon as one asks."""
        self._say(Predict(1, []))
        self.channel.receive()
        self.assertFalse(self.channel.is_cancelled("a"))
        self._say(Cancel(["a", "b"]))
        self.assertTrue(self.channel.is_cancelled("a"))
        self.assertTrue(self.channel.is_cancelled("b"))
        self.assertFalse(self.channel.is_cancelled("c"))

    def test_cancel_with_predict(self) -> None:
        """A cancellation that came together with its request is known while that is answered."""
        self._say(Predict(1, []), Cancel(["a"]))
        self.assertEqual(self.channel.receive(), Predict(1, []))
        self.assertTrue(self.channel.is_cancelled("a"))

    def test_forget(self) -> None:
        """After a batch its cancellations are forgotten."""
        self._say(Cancel(["a"]))
        self.channel.is_cancelled("a")
        self.channel.forget_cancelled()
        self.assertFalse(self.channel.is_cancelled("a"))

    def test_asking_loses_nothing(self) -> None:
        """A message that arrives while one asks for cancellations is received later."""
        self._say(Cancel(["a"]), Predict(1, []), Cancel(["b"]))
        self.assertTrue(self.channel.is_cancelled("b"))
        self.assertEqual(self.channel.receive(), Predict(1, []))

    def test_half_a_message(self) -> None:
        """Asking for cancellations does not wait for the rest of a message."""
        whole = encode(Cancel(["a"]))
        self.server.sendall(whole[:5])
        self.assertFalse(self.channel.is_cancelled("a"))
        self.server.sendall(whole[5:])
        self.assertTrue(self.channel.is_cancelled("a"))

    def test_server_gone(self) -> None:
        """When the server has gone nobody waits for anything."""
        self.server.close()
        self.assertTrue(self.channel.is_cancelled("a"))
        self.assertIsNone(self.channel.receive())

    def test_reset(self) -> None:
        """A server that dies with our words unread has gone like any other."""
        self.channel.send(Loaded())
        self.server.close()
        self.assertIsNone(self.channel.receive())

    def test_while_receiving(self) -> None:
        """Asking from another thread while one waits for the next message answers from what is known."""
        with self.channel._receiving:
            self._say(Cancel(["a"]))
            self.assertFalse(self.channel.is_cancelled("a"))
        self.assertTrue(self.channel.is_cancelled("a"))

    def test_nonsense(self) -> None:
        """Bytes that are no message end the conversation."""
        self.server.sendall(b"\x00\x00\x00\x01\xc1")
        self.assertRaises(WireError, self.channel.receive)

    def test_send(self) -> None:
        """A message arrives whole."""
        self.channel.send(Loaded())
        reader = server_reader()
        reader.receive(self.server.recv(100))
        self.assertEqual(list(reader.messages()), [Loaded()])
