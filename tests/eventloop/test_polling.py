# SPDX-License-Identifier: Apache-2.0
"""Tests for handling the events of a poll without a log context."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.eventloop.polling import without_log_context

epollreactor = pytest.importorskip("twisted.internet.epollreactor")


class End:
    """One end of a pair of sockets, in a reactor."""

    def __init__(self, reactor: Any, sock: socket.socket, on_read: Any) -> None:
        self.lost: list[Exception] = []
        self._reactor, self._socket, self._on_read = reactor, sock, on_read
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> Any:
        self._socket.recv(100)
        return self._on_read()

    def logPrefix(self) -> str:
        raise AssertionError("no log context is made")

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason.value)


class PollingTests(SynchronousTestCase):
    """A reactor of its own, which is polled but does not run."""

    def setUp(self) -> None:
        self.reactor = epollreactor.EPollReactor()
        self.addCleanup(self.close)
        self.sockets: list[socket.socket] = []
        self.assertTrue(without_log_context(self.reactor))

    def close(self) -> None:
        self.reactor.removeAll()
        self.reactor._poller.close()
        for sock in self.sockets:
            sock.close()
        if self.reactor.waker is not None:
            self.reactor.waker.connectionLost(None)

    def ready(self, on_read: Any) -> End:
        """Return an end that has something to read."""
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        theirs.send(b"x")
        return End(self.reactor, ours, on_read)

    def test_events(self) -> None:
        """Each event is handled, once."""
        read: list[int] = []
        for number in range(3):
            self.ready(lambda number=number: read.append(number))
        self.reactor.doIteration(0)
        self.assertEqual(sorted(read), [0, 1, 2])
        self.reactor.doIteration(0)
        self.assertEqual(len(read), 3)

    def test_closed_by_another(self) -> None:
        """An event of what another event has closed is dropped."""
        read: list[int] = []
        ends: list[End] = []

        def close_other(number: int) -> None:
            read.append(number)
            self.reactor.removeReader(ends[1 - number])

        ends += [self.ready(lambda number=number: close_other(number)) for number in range(2)]
        self.reactor.doIteration(0)
        self.assertEqual(len(read), 1)

    def test_raises(self) -> None:
        """What raises is lost and logged, as without this; the others are handled."""
        read: list[int] = []
        broken = self.ready(lambda: 1 / 0)
        self.ready(lambda: read.append(1))
        self.reactor.doIteration(0)
        self.assertEqual([type(error) for error in broken.lost], [ZeroDivisionError])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(read, [1])

    def test_handling_raises(self) -> None:
        """So is what raises when it is told that it is lost."""
        read: list[int] = []
        broken: Any = self.ready(lambda: 1 / 0)

        def raise_another(reason: Any) -> None:
            raise KeyError(reason)

        broken.connectionLost = raise_another
        self.ready(lambda: read.append(1))
        self.reactor.doIteration(0)
        self.assertEqual(len(self.flushLoggedErrors(KeyError, ZeroDivisionError)), 2)
        self.assertEqual(read, [1])

    def test_interrupted(self) -> None:
        """A signal ends the poll."""

        class Interrupted:
            def poll(self, timeout: float, most: int) -> list[Any]:
                raise InterruptedError

        poller, self.reactor._poller = self.reactor._poller, Interrupted()
        self.reactor.doIteration(None)
        self.reactor._poller = poller

    def test_messages(self) -> None:
        """Old code can log from a connection."""
        seen: list[Any] = []
        log.addObserver(seen.append)
        self.addCleanup(log.removeObserver, seen.append)
        self.ready(lambda: log.msg("from a connection"))
        self.reactor.doIteration(0)
        self.assertIn(("from a connection",), [event["message"] for event in seen])

    def test_other_reactors(self) -> None:
        """Reactors that are not Twisted's epoll reactor stay as they are."""
        other = SelectReactor()
        self.assertFalse(without_log_context(other))
        self.assertFalse(without_log_context(Clock()))
        other.removeAll()
        other.waker.connectionLost(None)
