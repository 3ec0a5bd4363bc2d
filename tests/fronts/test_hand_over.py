# SPDX-License-Identifier: Apache-2.0
"""Tests for connections that pass between the server's process and fronts."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fronts.front_world import Client, SocketWorld
from tests.web.lane_requests import NAMED, USUAL
from twisted_serve.fronts import front
from twisted_serve.fronts.link import RETURN_LIMIT, SILENT_LOOKS
from twisted_serve.wire.fronts import Ask, Back, Finish
from twisted_serve.wire.messages import Item

WRONG = USUAL.replace(b"<INFERENCE>", b"wrong")


class HandOverTests(SynchronousTestCase):
    """A server with two fronts."""

    holding = False

    def setUp(self) -> None:
        self.world = SocketWorld(2, True, self.holding)
        self.addCleanup(self.world.close)
        assert self.world.fronts is not None
        self.fronts = self.world.fronts

    def client(self) -> Client:
        """Connect another client."""
        client = Client(self.world)
        self.world.connections.append(client)
        return client

    def send(self, client: Client, data: bytes) -> bytes:
        """Send bytes, and return the answer that comes within 2 ms."""
        before = len(client.received)
        self.world.send(self.world.connections.index(client), data, [])
        self.world.advance(0)
        client.read()
        return client.received[before:]

    def asked(self, data: bytes) -> bytes:
        """Return bytes with the key in place of the word for it."""
        return data.replace(b"<INFERENCE>", self.world.keys[b"INFERENCE"])

    def lines(self) -> list[str]:
        """Return the lines of the log."""
        return [each[1] for each in self.world.seen if isinstance(each, tuple) and len(each) == 3]


class ConnectionTests(HandOverTests):
    """Where a connection is."""

    def test_fewest(self) -> None:
        """Each connection goes to the front that has the fewest."""
        for _ in range(8):
            self.client()
        self.assertEqual([len(link.connections) for link in self.world.links], [5, 5])
        # The connections are the fronts'; no channel has any.
        self.assertEqual(self.world.site.channels, set())

    def test_usual_requests_stay(self) -> None:
        """Usual requests and their answers bring no connection back."""
        client = self.client()
        for _ in range(5):
            self.assertIn(b"200 OK", self.send(client, USUAL))
        self.assertEqual((len(self.fronts.connections), self.world.site.channels), (3, set()))

    def test_patience(self) -> None:
        """A connection goes out again after usual requests, each time after twice as many."""
        client = self.client()
        for usual in (2, 4, 8):
            self.assertIn(b"201 Created", self.send(client, USUAL.replace(b"hi", b"si")))
            for _ in range(usual):
                self.assertEqual(len(self.fronts.connections), 2)
                self.send(client, USUAL)
            self.assertEqual(len(self.fronts.connections), 3)

    def test_counted(self) -> None:
        """Connections in fronts count for the limit of all."""
        admission = self.world.site.admission
        admission.watch(self.fronts.connections)
        admission.limit = 6
        clients = [self.client() for _ in range(4)]
        self.send(clients[-1], USUAL)
        self.assertIn(b"503 Service Unavailable", clients[-1].received)

    def test_no_front(self) -> None:
        """Without a front that takes it, the server's process has a connection until one does."""
        for link in self.world.links:
            link.abort("killed")
        client = self.client()
        self.send(client, USUAL)
        self.assertEqual((len(self.world.site.channels), client.received.count(b"200 OK")), (1, 1))
        self.world.start_front()
        self.assertIn(b"200 OK", self.send(client, USUAL))
        self.assertEqual((len(self.world.site.channels), len(self.fronts.connections)), (0, 1))

    def test_another_front(self) -> None:
        """A front that starts later gets its share of the connections that are idle; their clients notice nothing."""
        clients = [self.client() for _ in range(10)]
        for client in clients:
            self.send(client, USUAL)
        self.world.links[0].abort("killed")
        for client in clients[:5]:
            client.leave()
        clients = [self.client() for _ in range(6)]
        before = len(self.fronts.connections)
        self.world.start_front()
        self.world.advance(0.01)
        numbers = [len(link.connections) for link in self.world.links if link.is_open]
        self.assertEqual(sum(numbers), before)
        self.assertLessEqual(max(numbers) - min(numbers), 1, numbers)
        for client in clients:
            self.assertIn(b"200 OK", self.send(client, USUAL))
            self.assertIn(b"200 OK", self.send(client, USUAL))
        self.assertEqual(self.world.site.channels, set())

    def test_another_front_and_requests(self) -> None:
        """A connection that has sent a request when it is called back for another front is answered."""
        clients = [self.client() for _ in range(6)]
        turn = self.world.turn
        self.patch(self.world, "turn", lambda: None)
        self.world.start_front()
        self.patch(self.world, "turn", turn)
        for client in clients:
            client._socket.send(self.asked(USUAL))
        self.world.advance(0.05)
        for client in clients:
            client.read()
            self.assertIn(b"HTTP/1.1 ", client.received)

    def test_client_leaves(self) -> None:
        """A client that disconnects is forgotten."""
        client = self.client()
        client.leave()
        self.assertEqual(len(self.fronts.connections), 2)

    def test_a_refusal_without_a_reader(self) -> None:
        """A guess is recorded, and counted, although its sender has disconnected before the answer."""
        client = self.client()
        client._socket.send(WRONG)
        client.leave()
        self.world.turn()
        self.assertTrue(any(line.startswith("Refused POST /predictions/m") for line in self.lines()), self.lines())

    def test_slow_body(self) -> None:
        """The rest of a body is waited for; one that comes in too many reads, or too slowly, is the server's."""
        head, _, _ = self.asked(USUAL).replace(b": 2", b": 40").partition(b"hi")
        for pieces, seconds, here in ((4, 0.0, True), (20, 0.0, False), (2, 3.0, False)):
            client = self.client()
            size = 40 // pieces
            for number in range(pieces):
                client.send((head if number == 0 else b"") + b"x" * size)
                self.world.advance(seconds)
            self.world.advance(0.01)
            client.read()
            self.assertTrue(client.received.endswith(b"x" * 40))
            self.assertEqual(len(self.world.site.channels), 0 if here else 1, pieces)
            client.leave()
            self.world.turn()

    def test_idle(self) -> None:
        """A front closes a connection that is idle for too long."""
        client = self.client()
        self.send(client, USUAL)
        self.world.advance(48.0)
        client.read()
        self.assertTrue(client.open)
        self.world.advance(4.0)
        client.read()
        self.assertFalse(client.open)

    def test_heads(self) -> None:
        """The server keeps heads of requests that were allowed, some hundred, and fronts remember the same."""
        client = self.client()
        for number in range(700):
            self.assertIn(b"200 OK", self.send(client, USUAL.replace(b"Host: h", b"Host: h\r\nX-Number: %d" % number)))
        kept = [len(link._heads) for link in self.world.links]
        self.assertIn(max(kept), range(1, 257))
        self.assertEqual(sorted(kept), sorted(len(front._remembered) for front in self.world.front_ends))
        for data in (WRONG, USUAL.replace(b"Host: h", b"Host: h\r\nX-Request-Id: 1")):
            self.send(self.client(), data)
        self.assertEqual([len(link._heads) for link in self.world.links], kept)

    def test_many_with_one_head(self) -> None:
        """Clients that send the same new head at once share one; each answer comes to its client."""
        clients = [self.client() for _ in range(3)]
        for client in clients:
            client._socket.send(self.asked(USUAL))
        self.world.advance(0.1)
        for client in clients:
            client.read()
            self.assertEqual(client.received.count(b"200 OK"), 1)
        for client in clients:
            self.assertIn(b"200 OK", self.send(client, USUAL))

    def test_impossible_messages(self) -> None:
        """A front that speaks of connections or heads that it does not have is replaced."""
        for message in (Ask(999, 1, b"0", b"", 0.0), Ask(next(iter(self.fronts.connections)), 9, b"0", b"", 0.0)):
            link = self.fronts.connections[next(iter(self.fronts.connections))].link
            link.dataReceived(b"")
            with self.assertRaises(KeyError):
                link.messageReceived(message)


class WaitingTests(HandOverTests):
    """Requests that are at a worker."""

    holding = True

    def begin(self) -> Client:
        """Send a request that a worker holds."""
        client = self.client()
        self.send(client, USUAL)
        return client

    def answer(self) -> None:
        """Let the worker answer."""
        self.world.answer()
        self.world.advance(0.01)
        for connection in self.world.connections:
            connection.read()

    def test_front_dies(self) -> None:
        """The requests of a front that dies are abandoned and logged; those of another one are answered."""
        clients = [self.begin(), self.begin()]
        link = next(iter(each.link for each in self.fronts.connections.values() if each.request))
        link.abort("killed")
        self.world.turn()
        self.assertEqual(self.world.killed, [link])
        self.answer()
        self.answer()
        self.assertEqual(sorted(client.received.count(b"200 OK") for client in clients), [0, 1])
        self.assertEqual(len([line for line in self.lines() if '" 499 ' in line]), 1)
        self.assertEqual([len(each.connections) > 0 for each in self.world.links if each.is_open], [True])

    def test_stop(self) -> None:
        """At the stop all connections come back; one with a request is closed after its answer."""
        client, idle = self.begin(), self.client()
        waiting: Deferred[None] = self.fronts.all_closed(5.0)
        self.world.finish_up()
        self.world.turn()
        self.successResultOf(waiting)
        idle.read()
        self.assertEqual((idle.open, client.open, self.fronts.connections), (False, True, {}))
        self.answer()
        self.assertIn(b"Connection: close", client.received)
        self.assertFalse(client.open)

    def test_answer_and_stop_cross(self) -> None:
        """An answer that comes while the connection is on its way back is sent when it is there."""
        client = self.begin()
        self.fronts.finish_up()
        for worker in self.world.workers.alive:
            worker.answer()
        self.world.server.advance(0.002)
        self.world.advance(0.01)
        client.read()
        self.assertEqual(client.received.count(b"200 OK"), 1)

    def test_front_hangs(self) -> None:
        """A front that does not return a connection in time is killed, and its clients' requests are abandoned."""
        self.begin()
        waiting = self.fronts.all_closed(60.0)
        [link] = {each.link for each in self.fronts.connections.values() if each.request}
        said: list[Any] = []
        self.patch(link, "say", said.append)
        self.fronts.finish_up()
        self.assertEqual([type(each) for each in said], [Finish])
        self.world.advance(RETURN_LIMIT - 1.0)
        self.assertEqual(self.world.killed, [])
        self.world.advance(2.0)
        self.assertEqual(self.world.killed, [link])
        self.assertNoResult(waiting)
        link.abort("killed")
        self.world.turn()
        self.successResultOf(waiting)

    def test_silent(self) -> None:
        """A front that says nothing is killed, once in each such time; one that runs says so."""
        self.world.advance(30.0)
        self.assertEqual(self.world.killed, [])
        self.world.front_ends[0]._looking.stop()
        for _ in range(SILENT_LOOKS):
            self.world.advance(1.0)
        self.assertEqual(self.world.killed, [])
        self.world.advance(1.0)
        self.assertEqual(self.world.killed, [self.world.links[0]])

    def test_stop_with_connections_on_their_way(self) -> None:
        """A connection that a front gets after it was told to finish comes back as well."""
        link = self.world.links[0]
        client = Client.__new__(Client)
        self.patch(self.world, "turn", self.fronts.finish_up)
        client.__init__(self.world)  # type: ignore[misc]
        self.assertGreater(len(link.connections) + len(self.world.links[1].connections), 2)
        for _ in range(20):
            self.world.clock.iterate(0)
        self.assertEqual(self.fronts.connections, {})

    def test_front_dies_while_it_returns(self) -> None:
        """A descriptor that has come back without what the front has read of the connection is closed."""
        self.client()
        [absent] = [each for each in self.fronts.connections.values() if each.number == 3]
        opened = os.open(os.devnull, os.O_RDONLY)
        absent.link._descriptor_back(absent.number, opened)
        absent.link.abort("killed")
        self.assertRaises(OSError, os.fstat, opened)

    def test_called_back_once(self) -> None:
        """Whatever comes of a request, its connection is called back once; parts of a stream wait for it, in order."""
        client = self.begin()
        [absent] = [each for each in self.fronts.connections.values() if each.request]
        said: list[Any] = []
        say = absent.link.say

        def say_and_note(message: Any) -> None:
            said.append(message)
            say(message)

        self.patch(absent.link, "say", say_and_note)
        worker = self.world.workers.alive[0]
        [[job]] = worker.running
        for part in (b"one", b"two"):
            worker.chunk(Item(job.request_id, 200, "", {"content-type": "text/event-stream"}, part))
        self.assertEqual(said, [Back(absent.number)])
        self.assertEqual(worker.paused, {job.request_id})
        self.world.turn()
        self.assertEqual(worker.paused, set())
        self.answer()
        self.assertRegex(client.received, rb"(?s)3\r\none\r\n.*3\r\ntwo\r\n")

    def test_heads_at_once(self) -> None:
        """Answers that come together are answers, also when the server is told between them to forget heads."""
        self.patch(front, "_REMEMBERED", 2)
        self.world.links[0].abort("killed")
        self.world.turn()
        clients = [self.client() for _ in range(2)]
        for number in range(40):
            before = [client.received.count(b"200 OK") for client in clients]
            for at, client in enumerate(clients):
                head = b"Host: h\r\nX-Number: %d" % (number // 2 * len(clients) + at)
                client._socket.send(self.asked(USUAL.replace(b"Host: h", head)))
            self.world.turn()
            for _ in clients:
                self.world.answer()
            self.world.advance(0.01)
            for client in clients:
                client.read()
            after = [client.received.count(b"200 OK") for client in clients]
            self.assertEqual([now - then for now, then in zip(after, before, strict=True)], [1, 1], number)
        self.assertTrue(self.world.links[1].is_open)

    def test_revoked_while_it_waits(self) -> None:
        """A key that is revoked answers the request that it had allowed, and no further one."""
        client = self.client()
        self.send(client, NAMED)
        self.world.revoke()
        self.answer()
        self.assertEqual(client.received.count(b"200 OK"), 1)
        self.assertIn(b"400 Bad Request", self.send(client, NAMED))
