# SPDX-License-Identifier: Apache-2.0
"""
Connections: limits, deadlines, early answers, order; byte by byte, against the whole server in memory.
"""

from __future__ import annotations

import json
import re
from unittest.mock import patch
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs

from tests.web.http.channel_case import ChannelTestCase
from twisted_serve.logs import ACCESS_LOG
from twisted_serve.testing.server import Role
from twisted_serve.web.http.early_responses import LINGER_SECONDS


class KeepAliveTests(ChannelTestCase):
    """Tests for connections which go on."""

    def test_one_after_the_other(self) -> None:
        """A connection takes one request after the other."""
        for i in range(3):
            self.connection.send(self.predict(b"body %d" % i))
            self.assertEqual(self.body(), b"body %d" % i)
        self.assertEqual(self.statuses(), [200, 200, 200])
        self.assertIn(b"Connection: keep-alive", self.connection.received)
        self.assertTrue(self.connection.open)

    def test_pipelining(self) -> None:
        """Requests which are sent at once are answered in their order, each with its own id."""
        self.connection.send(b"".join(self.predict(b"<%d>" % i) for i in range(5)))
        received = self.connection.received
        self.assertEqual(self.statuses(), [200] * 5)
        positions = [received.index(b"<%d>" % i) for i in range(5)]
        self.assertEqual(positions, sorted(positions))
        ids = [line for line in received.split(b"\r\n") if line.lower().startswith(b"x-request-id")]
        self.assertEqual(len(set(ids)), 5)

    def test_pipelining_with_slow_workers(self) -> None:
        """A request behind one whose worker is slow waits for its turn."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        self.connection.send(self.predict(b"<0>") + self.predict(b"<1>"))
        self.assertEqual(self.statuses(), [])
        worker.answer()
        self.assertEqual(self.statuses(), [200])
        worker.answer()
        self.assertEqual(self.statuses(), [200, 200])
        self.assertLess(self.connection.received.index(b"<0>"), self.connection.received.index(b"<1>"))

    def test_errors_close(self) -> None:
        """After an error the connection is closed, and says so."""
        self.connection.send(b"GET /nowhere HTTP/1.1\r\nHost: h\r\n" + self.bearer() + b"\r\n")
        self.assertEqual(self.statuses(), [404])
        self.assertIn(b"Connection: close", self.connection.received)
        self.assertFalse(self.connection.open)

    def test_close_is_honoured(self) -> None:
        """A client which asks for the connection to be closed gets that."""
        self.connection.send(self.predict(b"x", b"Connection: close\r\n"))
        self.assertEqual(self.statuses(), [200])
        self.assertIn(b"Connection: close", self.connection.received)
        self.assertFalse(self.connection.open)

    def test_http_1_0(self) -> None:
        """An HTTP/1.0 client gets a closed connection, or an open one if it asks."""
        request = self.predict(b"x").replace(b"HTTP/1.1", b"HTTP/1.0")
        self.connection.send(request)
        self.assertFalse(self.connection.open)
        other = self.server.connect()
        for _ in range(2):
            other.send(request.replace(b"Host: h", b"Connection: Keep-Alive"))
        self.assertTrue(other.open)
        self.assertEqual(other.received.count(b" 200 "), 2)
        self.assertIn(b"Connection: keep-alive", other.received)

    def test_head(self) -> None:
        """HEAD has the head of the answer and no body."""
        self.connection.send(b"HEAD /ping HTTP/1.1\r\nHost: h\r\n" + self.bearer() + b"\r\n")
        self.assertTrue(self.connection.received.endswith(b"\r\n\r\n"))
        self.assertEqual(self.statuses(), [200])

    def test_head_of_an_error(self) -> None:
        """So it has where a path is malformed; the length is the one of GET, and the log has the request alone."""
        heads = []
        for method in (b"HEAD", b"GET"):
            connection = self.server.connect()
            with capturedLogs() as events:
                connection.send(method + b" //ping HTTP/1.1\r\nHost: h\r\n" + self.bearer() + b"\r\n")
            head, _end, body = connection.received.partition(b"\r\n\r\n")
            self.assertEqual(bool(body), method == b"GET")
            self.assertEqual([event.get("logger_name") for event in events], [ACCESS_LOG])
            heads.append(re.findall(rb"\AHTTP/1.1 400 .*|^Content-Length: .*", head, re.MULTILINE))
        self.assertEqual(heads[0], heads[1])
        self.assertEqual(len(heads[0]), 2)

    @given(st.lists(st.integers(1, 60), max_size=12))
    def test_any_cutting(self, sizes: list[int]) -> None:
        """However the bytes of a request are cut on their way, it is the same request."""
        data = self.predict(b"hello")
        connection = self.server.connect()
        for size in sizes:
            connection.send(data[:size])
            data = data[size:]
        if data:
            connection.send(data)
        self.assertEqual(self.statuses(connection), [200])
        self.assertTrue(connection.received.endswith(b"hello"))


class MalformedTests(ChannelTestCase):
    """Tests for what is not HTTP."""

    def test_malformed(self) -> None:
        """What cannot be read as HTTP is answered with 400 and closed; nothing after it is read."""
        for data in (
            b"nonsense\r\n\r\n",
            b"GET /ping\r\n\r\n",
            b"GET /ping HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
            b"GET /ping HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
            b"GET /ping HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
            b"GET /ping HTTP/1.1\r\nHost: h\r\n" + b"X-Header: aaaaaaaaaaaaaaaa\r\n" * 1000 + b"\r\n",
            b"GET /ping HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 501 + b"\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 9000,
        ):
            connection = self.server.connect()
            connection.send(data)
            connection.send(self.predict(b"smuggled"))
            self.assertEqual(self.statuses(connection), [400], data[:80])
            self.assertIn(b"Invalid HTTP message.", connection.received, data[:80])
        self.assertEqual(self.server.provider.workers[0].batches, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_malformed_is_recorded(self) -> None:
        """What is no HTTP has an id in its answer, a line in the access log, and its place in the counter."""
        with capturedLogs() as events:
            self.connection.send(b"GET /ping HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n")
        [line] = [event["line"] for event in events if event.get("logger_name") == ACCESS_LOG]
        head = self.connection.received.partition(b"\r\n\r\n")[0].lower()
        answer_id = re.findall(rb"x-request-id: (\S+)", head)[0].decode()
        UUID(answer_id)
        self.assertTrue(line.endswith(f' "- - -" 400 0 {answer_id}'), line)
        counted = self.server.request("GET", "/metrics").body
        self.assertIn(b'ts_answers_total{code_class="4xx",} 1.0', counted)

    def test_too_much_is_recorded(self) -> None:
        """So has a body that is too large, and an expectation that cannot be met."""
        for more, status in ((b"Content-Length: 99999999\r\n", 413), (b"Expect: x\r\nContent-Length: 1\r\n", 417)):
            connection = self.server.connect()
            with capturedLogs() as events:
                connection.send(b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n" + self.bearer() + more + b"\r\n")
            [line] = [event["line"] for event in events if event.get("logger_name") == ACCESS_LOG]
            self.assertIn(f'"POST /predictions/m HTTP/1.1" {status} ', line)
            head, _, body = connection.received.partition(b"\r\n\r\n")
            UUID(re.findall(rb"x-request-id: (\S+)", head.lower())[0].decode())
            self.assertEqual(json.loads(body)["code"], status)
        self.assertIn(b'ts_answers_total{code_class="4xx",} 2.0', self.server.request("GET", "/metrics").body)

    def test_bad_chunks(self) -> None:
        """A chunked body which is malformed is answered with 400."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%s\r\n" % self.bearer()
        self.connection.send(head + b"zz\r\nabc\r\n")
        self.assertEqual(self.statuses(), [400])

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        """No bytes make the server stumble."""
        connection = self.server.connect()
        connection.send(data)
        connection.send(b"\r\n\r\n")
        connection.leave()
        self.assertEqual(self.flushLoggedErrors(), [])


class HostTests(ChannelTestCase):
    """Tests for what clients call us."""

    def test_hosts(self) -> None:
        """What the header names makes no difference, as long as it is a host; and none of it is a line in the log."""
        for host in (b"", b"a..b", b"a_b", b"a" * 70, b"h:8080", b"h:", b"[::1]:8080", b"127.0.0.1", b"%C3%A9"):
            for method in (b"GET", b"POST"):
                self.assertEqual(self.ask(method, b"Host: " + host + b"\r\n"), [200], host)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_no_host(self) -> None:
        """What is no host, or is there twice, or not at all, is refused (RFC 9112 §3.2)."""
        for host in (
            b"",
            b"Host: h\r\nHost: h\r\n",
            b"Host: h\r\nhost: other\r\n",
            b"Host: \xff\r\n",
            b"Host: [::\r\n",
            b"Host: a b\r\n",
            b"Host: a, b\r\n",
            b"Host: a/b\r\n",
            b"Host: a@b\r\n",
            b"Host: a:b\r\n",
            b"Host: %zz\r\n",
        ):
            for method in (b"GET", b"POST"):
                self.assertEqual(self.ask(method, host), [400], host)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_says_why(self) -> None:
        """The answer says what is wrong."""
        self.connection.send(b"GET /ping HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n")
        self.assertEqual(json.loads(self.body())["reason"], "the header Host is there 2 times")

    def ask(self, method: bytes, host: bytes) -> list[int]:
        connection = self.server.connect()
        connection.send(method + b" /ping HTTP/1.1\r\n" + host + self.bearer() + b"Content-Length: 1\r\n\r\nx")
        return self.statuses(connection)

    def test_unix(self) -> None:
        """A client on a UNIX socket is served, whatever it says."""
        transport = StringTransport(hostAddress=UNIXAddress("/s"), peerAddress=UNIXAddress(None))
        channel = self.server.server.site_of(Role.INFERENCE).buildProtocol(UNIXAddress(None))
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 OK\r\n"))
        channel.connectionLost()


class PersistenceTests(ChannelTestCase):
    """Tests for which connections go on, and that they say so."""

    def test_close_in_a_list(self) -> None:
        """A client which says close, in whatever list of options, gets one answer, and is told that it is the last."""
        for options in (
            b"close",
            b"Close",
            b"close, TE",
            b"TE,close",
            b"keep-alive, close",
            b"TE\r\nConnection: close",
        ):
            connection = self.server.connect()
            connection.send(
                b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: "
                + options
                + b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n"
            )
            self.assertEqual(self.statuses(connection), [200], options)
            self.assertIn(b"Connection: close\r\n", connection.received)
            self.assertNotIn(b"keep-alive", connection.received)

    def test_old_client(self) -> None:
        """An HTTP/1.0 client that has not asked is told that the connection ends."""
        self.connection.send(b"GET /livez HTTP/1.0\r\n\r\n")
        self.assertIn(b"Connection: close\r\n", self.connection.received)
        self.assertNotIn(b"keep-alive", self.connection.received)

    def test_old_client_with_chunks(self) -> None:
        """Chunks in HTTP/1.0, whose end a proxy may see elsewhere, are refused, and nothing behind them is read."""
        head = b"POST /predictions/m HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n%s\r\n"
        self.connection.send(head % self.bearer() + b"1\r\nx\r\n0\r\n\r\n" + self.predict(b"smuggled"))
        self.assertEqual(self.statuses(), [400])
        self.assertEqual(self.server.provider.workers[0].batches, [])
        self.server.advance(LINGER_SECONDS)
        self.assertFalse(self.connection.open)


class UnreadAnswersTests(ChannelTestCase):
    """Tests for clients which send, and do not read."""

    options = {"keepalive_timeout": 40, "body_timeout": 100}

    def test_no_more_is_answered(self) -> None:
        """As long as a client leaves its answers, no request of it is answered, whether it has come already or not."""
        request = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"
        self.connection.stop_reading()
        self.connection.send(request * 1000)
        self.connection.send(request * 1000)
        self.assertLess(len(self.statuses()), 3)
        self.connection.read_on()
        self.assertEqual(self.statuses(), [200] * 2000)

    def test_after_a_slow_worker(self) -> None:
        """The same for what comes while a worker has the request."""
        worker = self.server.provider.workers[0]
        worker.holding = True
        self.connection.send(self.predict(b"x") + b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n" * 10)
        self.connection.stop_reading()
        worker.answer()
        self.assertEqual(self.statuses(), [200])
        self.connection.read_on()
        self.assertEqual(self.statuses(), [200] * 11)

    def test_slow_reader(self) -> None:
        """A client which is still taking an answer is not silent: it has as long as for a body."""
        self.connection.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        self.connection.stop_reading()
        self.server.advance(40)
        self.server.advance(99)
        self.assertTrue(self.connection.open)
        self.server.advance(1)
        self.assertFalse(self.connection.open)

    def test_reads_on(self) -> None:
        """A client which has taken its answer at last can go on."""
        self.connection.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        self.connection.stop_reading()
        self.server.advance(100)
        self.connection.read_on()
        self.connection.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(self.statuses(), [200, 200])

    def test_never_reads_the_last(self) -> None:
        """Neither can a client hold a connection open for ever by leaving its last answer."""
        transport = StringTransport()
        channel = self.server.server.site_of(Role.INFERENCE).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer)
        with patch.object(transport, "abortConnection") as abort:
            self.server.advance(99)
            abort.assert_not_called()
            self.server.advance(1)
            abort.assert_called_once()
        channel.connectionLost()

    def test_at_the_end(self) -> None:
        """When the server stops, nothing keeps what is still to be sent from being sent."""
        transport = StringTransport()
        channel = self.server.server.site_of(Role.INFERENCE).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        stopped = self.server.server.stopService()
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer)
        self.assertNoResult(stopped)
        channel.connectionLost()
        self.successResultOf(stopped)
