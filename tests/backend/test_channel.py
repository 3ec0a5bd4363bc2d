# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.channel`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from threading import Thread

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.backend.channel import Channel
from twisted_serve.wire import codec
from twisted_serve.wire.codec import WireError, encode, server_reader
from twisted_serve.wire.messages import (
    Cancel,
    Item,
    Job,
    Loaded,
    LoadModel,
    Part,
    Pause,
    Predict,
    Predicted,
    PredictFailed,
    Resume,
    ToWorker,
)

PREDICT = Predict(1, [Job("a", {}, []), Job("b", {}, [])])
# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 30.0

LOAD = LoadModel("m", "1.0", "/", "h.py", 1, {}, {}, "0")


class ChannelTests(SynchronousTestCase):
    """The worker's end of a socket, its other end filled beforehand; no time passes by itself."""

    def setUp(self) -> None:
        self.server, worker = socket.socketpair()
        self.addCleanup(self.server.close)
        self.addCleanup(worker.close)
        self.clock = Clock()
        self.channel = Channel(worker, self.clock.seconds)

    def _say(self, *messages: ToWorker) -> None:
        self.server.sendall(b"".join(encode(each) for each in messages))

    def test_in_order(self) -> None:
        """Messages are received in order, then the end."""
        self._say(LOAD, Predict(1, []), Predict(2, []))
        self.server.shutdown(socket.SHUT_WR)
        received = [self.channel.receive() for _ in range(5)]
        self.assertEqual(received, [LOAD, Predict(1, []), Predict(2, []), None, None])

    def test_pending_when_the_server_goes(self) -> None:
        """Batches that have been pending for some time are dropped if the server has closed the connection."""
        self._say(Predict(1, []), Predict(2, []), Predict(3, []))
        self.assertEqual(self.channel.receive(), Predict(1, []))
        self.server.shutdown(socket.SHUT_WR)
        self.assertEqual(self.channel.receive(), Predict(2, []))
        self.clock.advance(1.0)
        self.assertEqual([self.channel.receive(), self.channel.receive()], [None, None])

    def test_cancel(self) -> None:
        """A cancellation is not received but known, as soon as one asks."""
        self._say(PREDICT)
        self.channel.receive()
        self.assertFalse(self.channel.is_cancelled("a"))
        self._say(Cancel(["a", "b"]))
        self.assertTrue(self.channel.is_cancelled("a"))
        self.assertTrue(self.channel.is_cancelled("b"))
        self.assertFalse(self.channel.is_cancelled("c"))

    def test_cancelled_while_it_lay_there(self) -> None:
        """Before a batch that has been pending for some time is returned, cancellations are read."""
        self._say(Predict(1, []), PREDICT)
        self.channel.receive()
        self._say(Cancel(["a"]))
        self.clock.advance(1.0)
        self.assertEqual(self.channel.receive(), PREDICT)
        self.assertEqual((self.channel.has_gone("a"), self.channel.has_gone("b")), (True, False))

    def test_cancel_with_predict(self) -> None:
        """A cancellation that came together with its request is known while that is answered."""
        self._say(PREDICT, Cancel(["a"]))
        self.assertEqual(self.channel.receive(), PREDICT)
        self.assertTrue(self.channel.is_cancelled("a"))

    def test_forget(self) -> None:
        """Once a request is answered nothing more is known of it, whatever still comes."""
        self._say(PREDICT, Cancel(["a"]), Pause(["b"]))
        self.channel.receive()
        self.channel.forget(request_id for request_id in ("a", "b"))
        self._say(Cancel(["a"]), Pause(["a", "b"]))
        self.assertFalse(self.channel.is_cancelled("a"))
        self.assertFalse(self.channel.is_paused("b"))
        self.assertEqual((self.channel._cancelled, self.channel._paused, self.channel._asked), (set(), set(), set()))

    def test_asking_loses_nothing(self) -> None:
        """A message that arrives while one asks for cancellations is received later."""
        self._say(PREDICT, Cancel(["a"]), Predict(2, []), Cancel(["b"]))
        self.assertTrue(self.channel.is_cancelled("b"))
        self.assertEqual([self.channel.receive(), self.channel.receive()], [PREDICT, Predict(2, [])])

    def test_receive_now(self) -> None:
        """Who must not wait gets what is there."""
        self.assertEqual(self.channel.receive_now(), [])
        self._say(LOAD, PREDICT)
        self.assertEqual(self.channel.receive_now(), [LOAD, PREDICT])
        self.server.close()
        self.assertIsNone(self.channel.receive_now())

    def test_half_a_message(self) -> None:
        """Asking for cancellations does not wait for the rest of a message."""
        self._say(PREDICT)
        whole = encode(Cancel(["a"]))
        self.server.sendall(whole[:5])
        self.assertFalse(self.channel.is_cancelled("a"))
        self.server.sendall(whole[5:])
        self.assertTrue(self.channel.is_cancelled("a"))

    def test_server_gone(self) -> None:
        """When the server has closed the connection, every request counts as cancelled."""
        self.server.close()
        self.assertTrue(self.channel.is_cancelled("a"))
        self.assertIsNone(self.channel.receive())

    def test_reset(self) -> None:
        """A server that dies with unread data counts as closed, like any other."""
        self.channel.send(Loaded())
        self.server.close()
        self.assertIsNone(self.channel.receive())

    def test_while_receiving(self) -> None:
        """Asking from another thread while one waits for the next message answers from what that one has found."""
        self._say(PREDICT)
        self.channel.receive()
        received: list[object] = []
        thread = Thread(target=lambda: received.append(self.channel.receive()))
        thread.start()
        self.addCleanup(thread.join)
        self._until(lambda: self.channel._waiting)
        self.assertFalse(self.channel.is_cancelled("a"))
        self._say(Cancel(["a"]))
        self._until(lambda: self.channel.is_cancelled("a"))
        self._say(LOAD)
        thread.join(LONG)
        self.assertEqual(received, [LOAD])

    def test_slow_clients(self) -> None:
        """A chunk waits until its client can take it; one thread for each, and none waits for another's client."""
        self._say(PREDICT, Pause(["a", "b"]))
        self.channel.receive()
        self.assertTrue(self.channel.may_send("c"))
        sent: dict[str, bool] = {}
        threads = {
            each: Thread(target=lambda each=each: sent.update({each: self.channel.may_send(each)})) for each in "ab"
        }
        for thread in threads.values():
            thread.start()
            self.addCleanup(thread.join, LONG)
        self._until(lambda: self.channel._waiting)
        self.assertEqual(sent, {})
        self._say(Resume(["b"]))
        threads["b"].join(LONG)
        self.assertEqual(sent, {"b": True})
        self._say(Cancel(["a"]))
        threads["a"].join(LONG)
        self.assertEqual(sent, {"b": True, "a": False})

    def test_slow_client_when_the_server_goes(self) -> None:
        """Who waits for a client waits no longer than there is a server."""
        self._say(PREDICT, Pause(["a"]))
        self.server.shutdown(socket.SHUT_WR)
        self.assertFalse(self.channel.may_send("a"))

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONG
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_answer(self) -> None:
        """An answer that no frame can carry is replaced by an error."""
        self.channel.answer(Predicted(7, []))
        self.patch(codec, "MAX_FRAME", 200)
        self.channel.answer(Predicted(8, [Item("a", 200, "", {}, b"x" * 300)]))
        reader = server_reader()
        reader.receive(self.server.recv(1000))
        self.assertEqual(
            list(reader.messages()),
            [
                Predicted(7, []),
                PredictFailed(
                    8, 500, "The answers of this batch cannot be sent: a frame of 345 bytes; the limit is 200"
                ),
            ],
        )

    def _in_thread(self, work: Callable[[], object]) -> None:
        thread = Thread(target=work)
        thread.start()
        self.addCleanup(thread.join)

    def test_large_messages(self) -> None:
        """Messages that are larger than what the socket holds are received whole, and what follows them."""
        large = Predict(1, [Job("a", {}, [Part("body", "", b"x" * 3_000_000)])])
        sent = [large, Predict(2, []), large, Predict(3, [])]
        self._in_thread(lambda: self._say(*sent))
        self.assertEqual([self.channel.receive() for _ in sent], sent)

    def test_half_of_a_large_message(self) -> None:
        """A server that ends in the middle of a large message has gone; until then there is no message."""
        data = encode(Predict(1, [Job("a", {}, [Part("body", "", b"x" * 3_000_000)])]))
        self.server.sendall(data[:100_000])
        self.assertEqual(self.channel.receive_now(), [])
        self.assertEqual(self.channel.receive_now(), [])
        self.server.close()
        self.assertIsNone(self.channel.receive())

    def test_large_answer(self) -> None:
        """An answer that is larger than what the socket holds arrives whole, and the next one."""
        answer = Predicted(7, [Item(str(n), 200, "", {}, b"%d" % n * 100_000) for n in range(300)])

        def answers() -> None:
            self.channel.answer(answer)
            self.channel.send(Loaded())

        self._in_thread(answers)
        reader, found = server_reader(), list[object]()
        while len(found) < 2:
            reader.receive(self.server.recv(1 << 20))
            found += reader.messages()
        self.assertEqual(found, [answer, Loaded()])

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
