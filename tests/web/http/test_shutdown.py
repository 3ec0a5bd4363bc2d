# SPDX-License-Identifier: Apache-2.0
"""What connections see of a server that fails, or stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from tests.web.http.channel_case import ChannelTestCase
from twisted_serve.assembly.server import LAST_ANSWERS
from twisted_serve.testing.server import MemoryConnection, Role


class DefectTests(ChannelTestCase):
    """Tests for defects in what answers."""

    def render(self, render: Callable[[Any], bytes]) -> None:
        with patch.object(self.server.server.site_of(Role.INFERENCE).resource, "render", render):
            self.connection.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")

    def test_before_the_answer(self) -> None:
        """A client whose request meets a defect is told so, and no more; the log has the rest."""

        def render(request: Any) -> bytes:
            raise ZeroDivisionError("a secret")

        self.render(render)
        self.assertEqual(self.statuses(), [500])
        self.assertNotIn(b"secret", self.connection.received)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_within_the_answer(self) -> None:
        """An answer that has begun is broken off, and not ended as if it were whole."""

        def render(request: Any) -> bytes:
            request.write(b"half")
            raise ZeroDivisionError

        self.render(render)
        self.assertTrue(self.connection.received.endswith(b"half\r\n"))
        self.assertFalse(self.connection.open)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ShutdownTests(ChannelTestCase):
    """Tests for connections when the server stops."""

    def test_answered_before_the_end(self) -> None:
        """What is being answered is finished before the server stops; idle connections are closed at once."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        idle = self.server.connect()
        self.connection.send(self.predict(b"x"))
        stopped = self.server.server.stopService()
        self.assertNoResult(stopped)
        self.assertFalse(idle.open)
        self.assertFalse(self.server.key_file.exists())
        worker.answer()
        self.assertEqual(self.statuses(), [200])
        self.server.advance(10)
        self.successResultOf(stopped)
        self.assertFalse(self.connection.open)
        self.assertEqual(list(self.server.directory.glob("twisted_serve-*")), [])
        self.assertIn(b"Connection: close\r\n", self.connection.received)

    def test_half_a_request(self) -> None:
        """Who is in the middle of sending a request may send the rest, and is told; not for long, though."""
        whole = self.predict(b"x" * 10)
        in_head, in_body, slow = (self.server.connect() for _ in range(3))
        in_head.send(whole[:3])
        in_body.send(whole[:-5])
        slow.send(whole[:-5])
        stopped = self.server.server.stopService()
        self.assertNoResult(stopped)
        for connection, rest in ((in_head, whole[3:]), (in_body, whole[-5:])):
            connection.send(rest)
            self.assertEqual(self.statuses(connection), [503])
            self.assertIn(b"Connection: close\r\n", connection.received)
            self.assertFalse(connection.open)
        self.assertNoResult(stopped)
        self.server.advance(LAST_ANSWERS)
        self.successResultOf(stopped)
        self.assertFalse(slow.open)
        self.assertEqual(slow.received, b"")


class ShutdownDelayTests(ChannelTestCase):
    """Tests for a server that is unready for a while before it stops."""

    options = {"shutdown_delay": 10}

    def setUp(self) -> None:
        super().setUp()
        self.site = self.server.server.site_of(Role.INFERENCE)
        self.request = self.predict(b"x")
        self.stopped = self.server.server.stopService()

    def assertServing(self) -> None:
        """New connections are taken, predictions answered, and whoever asks is told to go elsewhere."""
        self.assertEqual(MemoryConnection(self.site).get("/readyz"), 503)
        self.assertEqual(MemoryConnection(self.site).get("/livez"), 200)
        connection = MemoryConnection(self.site)
        connection.send(self.request)
        self.assertEqual(self.statuses(connection), [200])
        self.assertTrue(connection.open)
        self.assertTrue(self.server.key_file.exists())

    def test_unready_and_serving(self) -> None:
        """It serves until the time is over; then it stops as ever."""
        self.assertServing()
        self.server.advance(9.9)
        self.assertServing()
        self.assertNoResult(self.stopped)
        self.server.advance(0.1)
        self.assertFalse(self.server.key_file.exists())
        self.server.advance(LAST_ANSWERS)
        self.successResultOf(self.stopped)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_hurry(self) -> None:
        """Who is in a hurry does not wait for that."""
        self.assertServing()
        self.server.server.hurry()
        self.successResultOf(self.stopped)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
