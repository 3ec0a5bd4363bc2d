# SPDX-License-Identifier: Apache-2.0
"""Tests for the opening of listeners: who shares an address, and what is done about a socket that is in the way."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.addresses import Address, same_listener
from twisted_serve.config.options import ServerOptions
from twisted_serve.listening.ports import BACKLOG, Listener, plan_listeners
from twisted_serve.rpc.methods import INFERENCE, MANAGEMENT
from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.web.http.plain_http import TlsFactory

ADDRESSES = st.sampled_from(
    [
        "http://127.0.0.1:8080",
        "http://localhost:8080",
        "http://127.0.0.1:8081",
        "http://0.0.0.0:8080",
        "http://[::1]:8080",
        "http://127.0.0.1:0",
        "unix:/tmp/a.sock",
        "unix:/tmp/b.sock",
    ]
)


def plan(inference: str, management: str, metrics: str, **options: Any) -> list[Listener]:
    """Plan the listeners for these addresses."""
    return plan_listeners(
        ServerOptions(inference_address=inference, management_address=management, metrics_address=metrics, **options)
    )


class PlanTests(SynchronousTestCase):
    """Tests for `plan_listeners`."""

    def test_apart(self) -> None:
        """By default each role has a listener of its own."""
        self.assertEqual(
            plan_listeners(ServerOptions()),
            [
                Listener(Address("http", "127.0.0.1", 8080), Role.INFERENCE),
                Listener(Address("http", "127.0.0.1", 8081), Role.MANAGEMENT, "management_address"),
                Listener(Address("http", "127.0.0.1", 8082), Role.METRICS, "metrics_address"),
            ],
        )

    def test_together(self) -> None:
        """Roles with the same address share a listener, however the address is written."""
        one, alias, two = "http://127.0.0.1:8080", "HTTP://localhost:8080", "http://127.0.0.1:8081"
        address = Address("http", "127.0.0.1", 8080)
        self.assertEqual(plan(one, one, one), [Listener(address, Role.INFERENCE | Role.MANAGEMENT | Role.METRICS)])
        self.assertEqual(
            plan(one, alias, two),
            [
                Listener(address, Role.INFERENCE | Role.MANAGEMENT),
                Listener(Address("http", "127.0.0.1", 8081), Role.METRICS, "metrics_address"),
            ],
        )
        self.assertEqual([each.roles for each in plan(one, two, one)], [Role.INFERENCE | Role.METRICS, Role.MANAGEMENT])
        self.assertEqual([each.roles for each in plan(one, two, two)], [Role.INFERENCE, Role.MANAGEMENT | Role.METRICS])

    def test_any_port(self) -> None:
        """Roles which leave the choice of the port to the system get a port each."""
        self.assertEqual(len(plan(*["http://127.0.0.1:0"] * 3)), 3)

    def test_no_metrics(self) -> None:
        """Without the metrics API nobody listens for it."""
        one = "http://127.0.0.1:8080"
        [listener] = plan(one, one, "http://127.0.0.1:9", enable_metrics_api=False)
        self.assertEqual(listener.roles, Role.INFERENCE | Role.MANAGEMENT)

    @given(ADDRESSES, ADDRESSES, ADDRESSES, st.booleans())
    def test_every_role_once(self, inference: str, management: str, metrics: str, with_metrics: bool) -> None:
        """Each role is on exactly one listener, at its own address, and no two listeners want the same socket."""
        options = ServerOptions(
            inference_address=inference,
            management_address=management,
            metrics_address=metrics,
            enable_metrics_api=with_metrics,
        )
        listeners = plan_listeners(options)
        wanted = {Role.INFERENCE: options.inference_address, Role.MANAGEMENT: options.management_address}
        if with_metrics:
            wanted[Role.METRICS] = options.metrics_address
        for role, address in wanted.items():
            [listener] = [each for each in listeners if each.roles & role]
            self.assertTrue(listener.address == address or same_listener(listener.address, address))
        for at, listener in enumerate(listeners):
            self.assertTrue(listener.roles)
            self.assertFalse(any(same_listener(listener.address, other.address) for other in listeners[:at]))


class TcpTransport(StringTransportWithDisconnection):
    """A transport of which somebody believes that it is TCP."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""


class OpenPortTests(SynchronousTestCase):
    """Tests for `open_port`, by what a server asks of its reactor."""

    def test_tcp(self) -> None:
        """A TCP listener is on its interface alone, with a long queue."""
        with MemoryServer() as server:
            asked = [(port, backlog, interface) for port, _site, backlog, interface in server.clock.tcpServers]
        self.assertEqual(asked, [(port, BACKLOG, "127.0.0.1") for port in (8080, 8081, 8082, 7070, 7071)])

    def test_tls(self) -> None:
        """An https address gets TLS; the others do not."""
        with MemoryServer({"management_address": "https://127.0.0.1:8444"}) as server:
            secure = [
                (port, backlog, interface)
                for port, factory, backlog, interface in server.clock.tcpServers
                if isinstance(factory, TlsFactory)
            ]
            self.assertEqual(secure, [(8444, BACKLOG, "127.0.0.1")])
            self.assertEqual(len(server.clock.tcpServers), 5)

    def test_grpc_tls(self) -> None:
        """With ``enable_grpc_ssl`` both ports of gRPC have TLS, which offers HTTP/2 alone; HTTP has none."""
        with MemoryServer({"enable_grpc_ssl": True}) as server:
            secure = [
                (port, factory.wrappedFactory.acceptableProtocols())
                for port, factory, *_ in server.clock.tcpServers
                if isinstance(factory, TLSMemoryBIOFactory)
            ]
            self.assertEqual(secure, [(7070, [b"h2"]), (7071, [b"h2"])])
            self.assertEqual(
                [str(each) for each in server.server.grpc_addresses.values()],
                ["https://127.0.0.1:7070", "https://127.0.0.1:7071"],
            )

    def test_no_grpc(self) -> None:
        """gRPC can be switched off, and has any free ports where HTTP has."""
        with MemoryServer({"enable_grpc": False}) as server:
            self.assertEqual(len(server.clock.tcpServers), 3)
            self.assertEqual(server.server.grpc_addresses, {})
            self.assertRaises(KeyError, server.grpc)
        with MemoryServer({"inference_address": "http://127.0.0.1:0"}) as server:
            self.assertEqual([port for port, *_ in server.clock.tcpServers], [0, 8081, 8082, 0, 7071])

    def test_one_grpc_port(self) -> None:
        """Both roles can share a port, and each method has its key there."""
        ports = {"grpc_inference_port": 7000, "grpc_management_port": 7000}
        with MemoryServer(ports) as server:
            self.assertEqual(len(server.clock.tcpServers), 4)
            client = server.grpc()
            for path, kind in (
                (f"/{INFERENCE}/Ping", TokenKind.INFERENCE),
                (f"/{MANAGEMENT}/ListModels", TokenKind.MANAGEMENT),
            ):
                for each in TokenKind:
                    self.assertEqual(client.call(path, b"", server.key(each)).code, 0 if each is kind else 7)

    def test_plain_http_on_a_tls_port(self) -> None:
        """A client that speaks plain HTTP is told in the clear what is wrong; one that speaks neither is cut off."""
        with MemoryServer({"management_address": "https://127.0.0.1:8444"}) as server:
            [factory] = [each for _port, each, *_ in server.clock.tcpServers if isinstance(each, TlsFactory)]
            for said, answered in ((b"GET /models HTTP/1.1\r\nHost: h\r\n", True), (b"\x00\x01 nonsense", False)):
                transport = TcpTransport()
                connection = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1234))
                assert connection is not None
                transport.protocol = connection
                connection.makeConnection(transport)
                connection.dataReceived(said)
                self.assertFalse(transport.connected)
                self.assertEqual(transport.value().startswith(b"HTTP/1.1 403 "), answered)
                if answered:
                    head, _, body = transport.value().partition(b"\r\n\r\n")
                    length = int(head.partition(b"Content-Length: ")[2])
                    text = "This TorchServe instance only accepts HTTPS requests"
                    self.assertEqual(json.loads(body[:length]), {"status": text})
                    # What else it says is not heard.
                    connection.dataReceived(b"Host: h\r\n\r\n")
                    self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)

    def test_unusable_certificate(self) -> None:
        """A server whose certificate cannot be used does not start, names the file, and leaves nothing behind."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for name in ("chain.pem", "key.pem"):
            (directory / name).write_text("nonsense")
        options = {
            "management_address": "https://127.0.0.1:8444",
            "certificate_file": directory / "chain.pem",
            "private_key_file": directory / "key.pem",
            "token_key_file": directory / "key_file.json",
            "temp_directory": directory,
        }
        error = self.assertRaises(ValueError, MemoryServer, options)
        self.assertIn("chain.pem", str(error))
        self.assertEqual(sorted(path.name for path in directory.iterdir()), ["chain.pem", "key.pem"])


class PassedSocketTests(SynchronousTestCase):
    """Sockets that systemd passes; this process was passed none."""

    def test_not_passed(self) -> None:
        """A socket that was not passed is named, by its name or its number, and nothing is left behind."""
        for which in ("name=inference", "index=0"):
            description = f"systemd:domain=INET:{which}"
            with self.assertRaises(ValueError) as raised:
                MemoryServer({"inference_address": description})
            self.assertEqual(
                str(raised.exception),
                f"Invalid binding address: {description}: systemd has not passed such a socket to this process"
                " (inference_address)",
            )


class UnixSocketTests(SynchronousTestCase):
    """Tests for listeners on UNIX sockets, which are files that somebody may have put there."""

    def setUp(self) -> None:
        # Not in trial's directory: a socket's path is short, or it is none.
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "s.sock"

    @contextmanager
    def server(self) -> Iterator[MemoryServer]:
        """Run a server whose inference listener is at the path."""
        with MemoryServer({"inference_address": f"unix:{self.path}"}) as server:
            yield server

    def test_listens(self) -> None:
        """The listener is at its path, for the owner and its group; its address is what was configured."""
        with self.server() as server:
            [(path, _site, backlog, mode, _pid)] = server.clock.unixServers
            self.assertEqual((path, backlog, mode), (str(self.path), BACKLOG, 0o660))
            self.assertEqual(server.server.addresses[Role.INFERENCE], Address("unix", path=str(self.path)))
            answer = server.request("GET", "/ping", server.key(TokenKind.INFERENCE))
            self.assertEqual(answer.status, 200)

    def test_stale_socket(self) -> None:
        """A socket which a dead server left behind is removed."""
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(self.path))
        self.assertTrue(stat.S_ISSOCK(os.lstat(self.path).st_mode))
        with self.server():
            self.assertFalse(os.path.lexists(self.path))

    def test_file_in_its_place(self) -> None:
        """A file, a directory or a link in its place is not removed, nor what the link leads to."""
        other = self.path.with_suffix(".other")
        with socket.socket(socket.AF_UNIX) as elsewhere:
            elsewhere.bind(str(other))
        self.addCleanup(other.unlink)

        self.path.write_text("precious")
        with self.server():
            self.assertEqual(self.path.read_text(), "precious")
        self.path.unlink()

        self.path.mkdir()
        with self.server():
            self.assertTrue(self.path.is_dir())
        self.path.rmdir()

        self.path.symlink_to(other)
        with self.server():
            self.assertTrue(self.path.is_symlink())
            self.assertTrue(other.exists())
        self.path.unlink()

    def test_socket_in_use(self) -> None:
        """A socket at which another server answers is not taken away from it; the reactor will say what that means."""
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            self.addCleanup(self.path.unlink)
            other.listen()
            with self.server():
                self.assertTrue(stat.S_ISSOCK(os.lstat(self.path).st_mode))
