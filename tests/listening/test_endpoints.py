# SPDX-License-Identifier: Apache-2.0
"""Tests for listeners at the endpoints of Twisted."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet import endpoints
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.values import ConfigError
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.admission import MOST_REFUSALS, REFUSAL_SECONDS
from twisted_serve.listening.endpoints import open_endpoint, unix_path, with_defaults
from twisted_serve.listening.ports import BACKLOG
from twisted_serve.testing.server import MemoryServer, Role

DEFAULTS = {"backlog": "1024", "mode": "660"}
REQUEST = b"GET /ping HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer KEY\r\n\r\n"
PROXY = IPv4Address("TCP", "10.0.0.1", 5555)


class Transport(StringTransportWithDisconnection):
    """A transport that can be cut."""

    def abortConnection(self) -> None:
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""


class DefaultsTests(SynchronousTestCase):
    """Tests for `with_defaults`."""

    def test_missing(self) -> None:
        """Arguments without a value get ours, those of the port below a proxy protocol, too."""
        for text, complete in (
            ("tcp:80", "tcp:80:backlog=1024"),
            ("tcp6:80", "tcp6:80:backlog=1024"),
            ("tcp:80:127.0.0.1", "tcp:80:127.0.0.1:backlog=1024"),
            ("unix:/x:backlog=9", "unix:/x:backlog=9:mode=660"),
            ("unix:/x:lockfile=0", "unix:/x:lockfile=0:backlog=1024:mode=660"),
            ("haproxy:tcp:80", "haproxy:tcp:80:backlog=1024"),
            ("haproxy:unix:/x", "haproxy:unix:/x:backlog=1024:mode=660"),
        ):
            self.assertEqual(with_defaults(text, DEFAULTS), complete)

    def test_given(self) -> None:
        """What a description says is left alone, by name and by position; so are endpoints without these arguments."""
        for text in (
            "tcp:80:backlog=9",
            "tcp:80:127.0.0.1:9",
            "tcp6:80:9",
            "unix:/x:777:9",
            "unix:/x:mode=777:backlog=9",
            "systemd:domain=INET:index=0",
        ):
            self.assertEqual(with_defaults(text, DEFAULTS), text)

    @given(
        st.sampled_from(["", "haproxy:"]),
        st.sampled_from([["tcp:80"], ["tcp:80", "127.0.0.1"], ["tcp:80", "127.0.0.1", "9"], ["tcp:port=80"]]),
        st.lists(st.sampled_from(["backlog=9", "interface=127.0.0.1"]), max_size=2),
    )
    def test_readable(self, wrapper: str, start: list[str], arguments: list[str]) -> None:
        """A description that Twisted can read stays one, with the value it has, or with ours."""
        text = ":".join((wrapper + start[0], *start[1:], *arguments))
        try:
            before: Any = serverFromString(MemoryReactorClock(), text)
        except TypeError:
            return
        after: Any = serverFromString(MemoryReactorClock(), with_defaults(text, DEFAULTS))
        if wrapper:
            before, after = before._wrappedEndpoint, after._wrappedEndpoint
        given_value = "9" in start or "backlog=9" in arguments
        self.assertEqual(after._backlog, 9 if given_value else 1024)
        self.assertEqual((after._port, after._interface), (before._port, before._interface))

    def test_path(self) -> None:
        """Of a UNIX socket the path is known, and no other endpoint has one."""
        self.assertEqual(unix_path("unix:/x:mode=600"), "/x")
        self.assertEqual(unix_path(r"haproxy:unix:address=/a\:b"), "/a:b")
        self.assertIsNone(unix_path("tcp:80"))


class OpenTests(SynchronousTestCase):
    """Tests for `open_endpoint`."""

    def open(self, opening: Any) -> Any:
        """Open an endpoint whose `listen` returns, or raises, ``opening``."""
        endpoint = mock.Mock(**{"listen.side_effect": [opening]})
        with mock.patch.object(endpoints, "serverFromString", return_value=endpoint):
            return open_endpoint(cast(IServeReactor, MemoryReactorClock()), "plugin:", Factory())

    def test_at_once(self) -> None:
        """The port of an endpoint that is open is what is returned."""
        port = object()
        self.assertIs(self.open(succeed(port)), port)

    def test_taken(self) -> None:
        """An address that is taken is Twisted's error, as with other addresses."""
        error = CannotListenError("", 80, OSError("in use"))
        self.assertIs(self.assertRaises(CannotListenError, self.open, fail(error)), error)

    def test_fails(self) -> None:
        """What else goes wrong, at once or in the Deferred, is told on one line."""
        for opening in (OSError("no\nuse"), fail(OSError("no\nuse"))):
            self.assertEqual(str(self.assertRaises(ValueError, self.open, opening)), "OSError: no use")
        self.assertEqual(str(self.assertRaises(ValueError, self.open, KeyError())), "KeyError")

    def test_later(self) -> None:
        """An endpoint that is not open at once is given up; a port that opens after all is closed."""
        for late in (True, False):
            closed: list[bool] = []
            port = mock.Mock(**{"stopListening.side_effect": lambda: closed.append(True)})  # noqa: B023
            opening: Deferred[Any] = Deferred((lambda d: None) if late else (lambda d: d.callback(port)))  # noqa: B023
            said = str(self.assertRaises(ValueError, self.open, opening))
            self.assertEqual(said, "it is not open at once")
            if late:
                self.assertTrue(opening.called)
            self.assertEqual(closed, [] if late else [True])


class ServerTests(SynchronousTestCase):
    """Servers at endpoints."""

    def test_addresses(self) -> None:
        """A server tells where it is open; roles with the same endpoint share it."""
        options = {
            "inference_address": "tcp:8080:interface=127.0.0.1",
            "management_address": "haproxy:tcp:9000:interface=127.0.0.1",
            "metrics_address": "tcp:8080:interface=127.0.0.1",
        }
        with MemoryServer(options) as server:
            asked = [(port, backlog, interface) for port, _site, backlog, interface in server.clock.tcpServers]
            self.assertEqual(asked[:2], [(8080, BACKLOG, "127.0.0.1"), (9000, BACKLOG, "127.0.0.1")])
            self.assertEqual([port for port, *_ in asked[2:]], [7070, 7071])
            self.assertEqual(server.server.addresses[Role.METRICS].scheme, "http")
            self.assertEqual(server.server.addresses[Role.INFERENCE], server.server.addresses[Role.METRICS])
            answer = server.request("GET", "/ping", server.key(TokenKind.INFERENCE))
            self.assertEqual(answer.status, 200)

    def test_bad_arguments(self) -> None:
        """Arguments that an endpoint cannot use name the setting, and what is wrong; nothing is left behind."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for key, text, reason in (
            ("inference_address", "tcp:eighty", "ValueError: invalid literal for int() with base 10: 'eighty'"),
            ("management_address", "tcp:80:colour=red", "TypeError: "),
            ("metrics_address", "ssl:443:privateKey=/no/such.pem", "FileNotFoundError: "),
            ("metrics_address", "systemd:domain=INET:index=7", "systemd has not passed such a socket"),
            ("inference_address", "haproxy:systemd:domain=INET", "ValueError: Specify exactly one"),
        ):
            options = {key: text, "token_key_file": directory / "key_file.json", "temp_directory": directory}
            said = str(self.assertRaises(ConfigError, MemoryServer, options))
            self.assertTrue(said.startswith(f"Invalid binding address: {text}: {reason}"), said)
            self.assertTrue(said.endswith(f" ({key})"), said)
            self.assertEqual(len(said.splitlines()), 1)
            self.assertEqual(list(directory.iterdir()), [])

    def test_unknown_type(self) -> None:
        """An unknown type of endpoint is refused with the configuration."""
        said = str(self.assertRaises(ConfigError, MemoryServer, {"metrics_address": "tpc:80"}))
        self.assertIn("Invalid binding address: tpc:80: 'tpc' is no type of endpoint", said)
        self.assertIn("metrics_address", said)

    def test_socket(self) -> None:
        """A socket that a dead server left behind is removed, and the new one has the mode of its description."""
        with TemporaryDirectory() as directory:
            path = f"{directory}/s.sock"
            with socket.socket(socket.AF_UNIX) as left_behind:
                left_behind.bind(path)
            for mode, expected in (("mode=600", 0o600), ("backlog=9", 0o660)):
                with MemoryServer({"inference_address": f"unix:{path}:{mode}"}) as server:
                    self.assertFalse(os.path.lexists(path))
                    [asked] = server.clock.unixServers
                    self.assertEqual((asked[0], asked[3]), (path, expected))


class ProxyTests(SynchronousTestCase):
    """Listeners behind a proxy that sends the PROXY protocol: which client a server takes a request for."""

    def setUp(self) -> None:
        self.servers: dict[str, MemoryServer] = {}

    def server_at(self, address: str) -> MemoryServer:
        """Return the server at an address, one for each test."""
        if address not in self.servers:
            self.servers[address] = server = MemoryServer({"inference_address": address})
            self.addCleanup(server.__exit__, None, None, None)
        return self.servers[address]

    def exchange(self, address: str, *pieces: bytes) -> tuple[bytes, list[str], bool]:
        """Send bytes to a server at an address; return the response, the lines of the access log, and if it is open."""
        server = self.server_at(address)
        with capturedLogs() as captured:
            [factory] = [each for port, each, *_ in server.clock.tcpServers if port == 9000]
            transport = Transport(peerAddress=PROXY)
            protocol = factory.buildProtocol(PROXY)
            assert protocol is not None
            transport.protocol = protocol
            protocol.makeConnection(transport)
            for piece in pieces:
                if transport.connected:
                    protocol.dataReceived(piece.replace(b"KEY", server.key(TokenKind.INFERENCE).encode()))
            server.clock.advance(0)
            lines = [event["line"] for event in captured if event.get("logger_name") == "ACCESS_LOG"]
            return transport.value(), lines, transport.connected

    def test_client(self) -> None:
        """The client is the one that the proxy names, in either version of the protocol, however it arrives."""
        addresses = socket.inet_aton("192.0.2.7") + socket.inet_aton("10.0.0.2") + struct.pack("!HH", 56324, 443)
        second = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses
        for header in (b"PROXY TCP4 192.0.2.7 10.0.0.2 56324 443\r\n", second):
            for pieces in ((header + REQUEST,), (header, REQUEST), (header[:20], header[20:] + REQUEST)):
                said, lines, _open = self.exchange("haproxy:tcp:9000", *pieces)
                self.assertTrue(said.startswith(b"HTTP/1.1 200 "), said)
                self.assertEqual([line.partition(" ")[0] for line in lines], ["/192.0.2.7:56324"])

    def test_unknown_client(self) -> None:
        """A client that the proxy does not know is the proxy."""
        _said, lines, _open = self.exchange("haproxy:tcp:9000", b"PROXY UNKNOWN 1 2 3 4\r\n" + REQUEST)
        self.assertEqual([line.partition(" ")[0] for line in lines], ["/10.0.0.1:5555"])

    def test_no_header(self) -> None:
        """Behind ``haproxy:`` nothing is served without a header, and a wrong one closes the connection."""
        for sent in (REQUEST, b"PROXY TCP4 nonsense\r\n" + REQUEST, b"PROXY " + b"A" * 5000):
            self.assertEqual(self.exchange("haproxy:tcp:9000", sent), (b"", [], False), sent)

    def test_forged_line(self) -> None:
        """A text in the place of an address does not come into the log; the client is the proxy."""
        for address in (b"x\n2026-01-01 ACCESS_LOG forged", b"fe80::1%x\nforged", "\u2028".encode(), b""):
            header = b"PROXY TCP6 " + address.replace(b" ", b"\t") + b" ::1 1 2\r\n"
            _said, lines, _open = self.exchange("haproxy:tcp:9000", header + REQUEST)
            self.assertEqual([line.partition(" ")[0] for line in lines], ["/10.0.0.1:5555"])

    def test_forged_header(self) -> None:
        """Without ``haproxy:`` nobody can give a client another address: the header is a bad request."""
        for address in ("tcp:9000", "http://127.0.0.1:9000"):
            said, lines, still_open = self.exchange(address, b"PROXY TCP4 127.0.0.1 10.0.0.2 1 2\r\n" + REQUEST)
            self.assertTrue(said.startswith(b"HTTP/1.1 400 "), said)
            self.assertEqual([line.partition(" ")[0] for line in lines], ["/10.0.0.1:5555"])
            self.assertEqual(said.count(b"HTTP/1.1"), 1)
            self.assertFalse(still_open and b"200" in said)

    @given(st.binary(max_size=60))
    @example(b"TCP4 192.0.2.7 10.0.0.2 port 443\r\n")
    @example(b"TCP4 \xff 10.0.0.2 1 443\r\n")
    @example(b"\x21\x11\x00\x01x")
    @example(b"\x21\x11\xff\xff")
    @example(b"\x21\x31\x00\xd8" + b"\xff" * 216)
    def test_any_header(self, rest: bytes) -> None:
        """No bytes in the place of a header do more than close the connection."""
        for start in (b"\r\n\r\n\x00\r\nQUIT\n", b"PROXY "):
            said, lines, _open = self.exchange("haproxy:tcp:9000", start + rest)
            self.assertEqual(lines, [])
            self.assertEqual(said, b"")

    def test_too_many(self) -> None:
        """A connection that is closed without a word is closed behind a proxy, too."""
        server = self.server_at("haproxy:tcp:9000")
        [factory] = [each for port, each, *_ in server.clock.tcpServers if port == 9000]
        site = server.server.site_of(Role.INFERENCE)
        admission = site.admission
        assert admission is not None
        admission.limit = 1
        transports = [Transport(peerAddress=PROXY) for _ in range(2 * MOST_REFUSALS + 2)]
        for transport in transports:
            protocol = factory.buildProtocol(PROXY)
            assert protocol is not None
            transport.protocol = protocol
            transport.loseWriteConnection = lambda: None  # type: ignore[attr-defined]
            protocol.makeConnection(transport)
        told = [b"503" in each.value() for each in transports]
        self.assertEqual(told, [False, *[True] * 2 * MOST_REFUSALS, False])
        self.assertEqual([each.connected for each in transports], [True, *[True] * 2 * MOST_REFUSALS, False])
        server.clock.advance(REFUSAL_SECONDS)
        self.assertEqual([each.connected for each in transports], [True, *[False] * 2 * MOST_REFUSALS, False])
