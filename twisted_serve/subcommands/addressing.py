# SPDX-License-Identifier: Apache-2.0
"""
Connect to a server's address: TCP, TLS or a Unix socket.

The certificate of a server that was found by its run file is compared with the file that the server uses, whatever the
name in it; the certificate of any other server is checked as browsers do.
"""

from __future__ import annotations

import re
import socket
import ssl
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

from attrs import frozen

from twisted_serve.config.addresses import Address, DefaultPorts, parse_address
from twisted_serve.subcommands.outcomes import Failed

_PORTS = DefaultPorts(80, 443)

# Addresses of listeners that are no addresses to connect to.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared only

_FIRST_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\s", re.S)


@frozen
class TlsTrust:
    """
    How the server's certificate is checked.

    :ivar authority: A file with the certificates of authorities, instead of the system's.
    :ivar insecure: Whether it is not checked.
    :ivar pinned: The file with the certificate that the server has; used without the others.
    :ivar client: A file with the certificate and the private key of the client.
    """

    authority: str | None = None
    insecure: bool = False
    pinned: str | None = None
    client: str | None = None

    def context(self) -> ssl.SSLContext:
        """
        Return the TLS context.

        :raise Failed: when a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.authority)
            if self.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            elif self.pinned is not None and self.authority is None:
                first = _FIRST_CERTIFICATE.search(Path(self.pinned).read_text())
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
                context.load_verify_locations(cadata=first[0] if first else "")
            if self.client is not None:
                context.load_cert_chain(self.client)
        except (OSError, ValueError) as e:
            names = " or ".join(filter(None, (self.authority, self.client, self.pinned)))
            raise Failed(f"{names} cannot be used for TLS: {e}") from e
        return context


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def parse_url(text: str) -> Address:
    """
    Parse the address of a server: ``http://host:port``, ``https://host:port`` or ``unix:/path``.

    :raise ValueError: for anything else.
    """
    address = parse_address(text.rstrip("/") if "://" in text else text, _PORTS)
    if address.scheme == "endpoint":
        raise ValueError(f"{text!r} is no address: http://host:port, https://host:port or unix:/path")
    return address


def reachable_host(address: Address) -> str:
    """Return the host to connect to, for the address of a listener."""
    return _ANY.get(address.host, address.host)


def connection_to(address: Address, trust: TlsTrust, timeout: float) -> HTTPConnection:
    """
    Return a connection, which is not open yet.

    :param timeout: In seconds, of each wait for the server.
    :raise Failed: when a file for TLS cannot be used.
    """
    if address.scheme == "unix":
        return _UnixConnection(address.path, timeout)
    host = reachable_host(address)
    if address.scheme == "https":
        return HTTPSConnection(host, address.port, timeout=timeout, context=trust.context())
    return HTTPConnection(host, address.port, timeout=timeout)
