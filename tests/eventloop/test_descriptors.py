# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.eventloop.descriptors`."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import Any

from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.eventloop.descriptors import DescriptorSocket


class DescriptorSocketTests(SynchronousTestCase):
    """Both ends in one process."""

    def setUp(self) -> None:
        ours, theirs = socket.socketpair()
        self.reactor = MemoryReactor()
        self.received: list[tuple[int, int | None]] = []
        self.sending = DescriptorSocket(self.reactor, ours, lambda *_arguments: None)
        self.receiving = DescriptorSocket(self.reactor, theirs, lambda *arguments: self.received.append(arguments))
        self.addCleanup(self.sending.close)
        self.addCleanup(self.receiving.close)
        self.addCleanup(self._close_received)

    def _close_received(self) -> None:
        for _number, descriptor in self.received:
            if descriptor is not None:
                os.close(descriptor)

    def test_passed(self) -> None:
        """Descriptors come in order, with their numbers, open the same files, and are not inherited by programs."""
        ends = [os.pipe() for _ in range(3)]
        for number, (reading, writing) in enumerate(ends):
            self.addCleanup(os.close, reading)
            self.assertTrue(self.sending.send(1 << 40 | number, writing))
            os.close(writing)
        self.assertIsNone(self.receiving.doRead())
        self.assertEqual([number - (1 << 40) for number, _ in self.received], [0, 1, 2])
        for (reading, _writing), (_number, descriptor) in zip(ends, self.received, strict=True):
            assert descriptor is not None
            os.write(descriptor, b"x")
            self.assertEqual(os.read(reading, 9), b"x")
            self.assertTrue(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)

    def test_full(self) -> None:
        """As long as the other end takes none, the sender is told so, and keeps what it has."""
        sent = 0
        with socket.socket() as passed:
            while self.sending.send(sent, passed.fileno()):
                sent += 1
                self.assertLess(sent, 100_000)
            self.receiving.doRead()
            # Some more than one turn takes are left.
            self.assertEqual([number for number, _ in self.received], list(range(64)))
            self.assertTrue(self.sending.send(sent, passed.fileno()))

    def test_no_descriptor_left(self) -> None:
        """A descriptor that this process may not open comes as ``None``, and others after it."""
        with open(os.devnull, "rb") as passed:
            self.sending._connection.sendall(b"\0" * 8)
            self.sending.send(7, passed.fileno())
        self.receiving.doRead()
        self.assertEqual([number for number, _ in self.received], [0, 7])
        self.assertEqual([descriptor is None for _, descriptor in self.received], [True, False])

    def test_other_end_closed(self) -> None:
        """The end of the other process ends the socket; what is sent then is not passed."""
        self.receiving.close()
        reason = self.sending.doRead()
        self.assertIsNotNone(reason)
        self.sending.connectionLost(reason)
        self.assertFalse(self.sending.send(1, 0))
        self.assertNotIn(self.sending, self.reactor.readers)

    def test_closed_while_reading(self) -> None:
        """A receiver that closes the socket gets no more."""
        with open(os.devnull, "rb") as passed:
            for number in range(2):
                self.sending.send(number, passed.fileno())

        def close(*arguments: Any) -> None:
            self.received.append(arguments)
            self.receiving.close()

        self.patch(self.receiving, "_received", close)
        self.assertIsNone(self.receiving.doRead())
        self.assertEqual(len(self.received), 1)
