# SPDX-License-Identifier: Apache-2.0
"""
Plan the listeners of a server and open their ports.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from attrs import evolve, frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IListeningPort, IOpenSSLContextFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_serve.config.addresses import Address, same_listener
from twisted_serve.config.endpoints import parse_description
from twisted_serve.config.options import ServerOptions
from twisted_serve.config.values import ConfigError
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.endpoints import open_endpoint, unix_path, with_defaults
from twisted_serve.listening.roles import Role
from twisted_serve.listening.tls import TlsFiles

# The length of the kernel's accept queue, as in TorchServe.
BACKLOG = 1024

# The owner and the group may connect; the directory's mode can restrict this further.
_SOCKET_MODE = 0o660

# The arguments of endpoints whose descriptions do not have them.
_ARGUMENTS = {"backlog": str(BACKLOG), "mode": f"{_SOCKET_MODE:o}"}

#: Makes the factory of the connections of a TLS listener.
WrapInTls: TypeAlias = type[TLSMemoryBIOFactory]


@frozen
class Listener:
    """
    An address with the roles that share it.

    :ivar setting: The setting that has the address; of several, the first.
    """

    address: Address
    roles: Role
    setting: str = "inference_address"


def plan_listeners(options: ServerOptions) -> list[Listener]:
    """Return the listeners to open: roles with the same address share one (``docs/torchserve/rest_api.md`` §1.3)."""
    return _shared([(key, address, Role[key.partition("_")[0].upper()]) for key, address in options.http_listeners])


def plan_grpc_listeners(options: ServerOptions) -> list[Listener]:
    """Return the listeners of gRPC to open: as those of HTTP, they share an address or have one each."""
    return _shared([(key, address, Role[key.split("_")[1].upper()]) for key, address in options.grpc_listeners])


def _shared(wanted: Iterable[tuple[str, Address, Role]]) -> list[Listener]:
    listeners: list[Listener] = []
    for setting, address, role in wanted:
        for i, listener in enumerate(listeners):
            if same_listener(listener.address, address):
                listeners[i] = evolve(listener, roles=listener.roles | role)
                break
        else:
            listeners.append(Listener(address, role, setting))
    return listeners


def tls_files(options: ServerOptions) -> TlsFiles:
    """Return the TLS files and settings of the https listeners."""
    return TlsFiles(
        options.certificate_file,
        options.private_key_file,
        options.keystore,
        options.keystore_pass,
        options.keystore_type,
        options.client_ca_file,
        options.client_certificate,
    )


def open_port(
    reactor: IServeReactor,
    listener: Listener,
    factory: Any,
    certificate: IOpenSSLContextFactory | None,
    wrap_in_tls: WrapInTls,
) -> IListeningPort:
    """
    Open a listener.

    :param factory: Makes its connections; of any type, because Twisted types factories by their protocols.
    :param certificate: The TLS context factory of an https listener.
    :raise CannotListenError: if the address is not available.
    :raise ConfigError: for an endpoint whose arguments cannot be used, naming the setting.
    :raise ValueError: if an https listener has no certificate.
    """
    address = listener.address
    if address.scheme == "endpoint":
        return _open_endpoint(reactor, listener, factory)
    if address.scheme == "unix":
        _clear_stale_socket(Path(address.path))
        return reactor.listenUNIX(address.path, factory, backlog=BACKLOG, mode=_SOCKET_MODE)
    if address.secure:
        if certificate is None:
            raise ValueError(f"there is no certificate for {address}")
        factory = wrap_in_tls(certificate, isClient=False, wrappedFactory=factory, clock=reactor)
    return reactor.listenTCP(address.port, factory, backlog=BACKLOG, interface=address.host)


def _open_endpoint(reactor: IServeReactor, listener: Listener, factory: Any) -> IListeningPort:
    text = listener.address.description
    path = unix_path(text)
    if path is not None:
        _clear_stale_socket(Path(path))
    try:
        return open_endpoint(reactor, with_defaults(text, _ARGUMENTS), factory)
    except ValueError as e:
        raise ConfigError(f"Invalid binding address: {text}: {e}", listener.setting) from e


def bound_address(address: Address, port: IListeningPort) -> Address:
    """
    Return the address with the port that the system chose for port 0.

    The address of an endpoint is the address at which it is open, for the endpoints whose address and encryption are
    known.
    """
    if address.scheme == "unix":
        return address
    here: Any = port.getHost()
    if address.scheme != "endpoint":
        return evolve(address, port=here.port)
    if isinstance(here, UNIXAddress):
        return Address("unix", path=os.fsdecode(here.name or b"")) if here.name else address
    encrypted = parse_description(address.description).encrypted
    if encrypted is None or not isinstance(here, (IPv4Address, IPv6Address)):
        return address
    return Address("https" if encrypted else "http", here.host, here.port)


def _clear_stale_socket(path: Path) -> None:
    """Remove a stale socket; keep other files and sockets with a listener, so that listening fails."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and not _answers(path):
            os.unlink(path)


def _answers(path: Path) -> bool:
    """Return whether a process may be listening at a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED
