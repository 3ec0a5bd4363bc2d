# SPDX-License-Identifier: Apache-2.0
"""
Parse the addresses of gRPC listeners, which are a host and a port, as in TorchServe, a UNIX socket or an endpoint.
"""

from __future__ import annotations

from ipaddress import ip_address

from twisted_serve.config.addresses import Address, DefaultPorts, parse_address

# A host without a port: the port has a setting for itself.
_NO_PORT = DefaultPorts(0, 0)


def grpc_host(text: str) -> str:
    """
    Return a host, a UNIX socket or an endpoint, checked; an IPv6 address without brackets.

    :raise ValueError: for anything else, such as a URL.
    """
    text = text.strip()
    bare = text.removeprefix("[").removesuffix("]")
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    if "://" in text:
        raise ValueError(f"Invalid binding address: {text}: expected a host without scheme and port")
    if ":" in text:
        parse_address(text, _NO_PORT)
    else:
        parse_address(f"http://{text}", _NO_PORT)
    return text


def grpc_port(given: int | None, http: Address, default: int) -> int:
    """Return the port of a gRPC listener: any free one by default if the HTTP listener of the same API has that."""
    if given is not None:
        return given
    return 0 if http.scheme in ("http", "https") and http.port == 0 else default


def grpc_address(host: str, port: int, secure: bool) -> Address:
    """
    Return the address of a gRPC listener.

    :param host: As from `grpc_host`; a UNIX socket and an endpoint have no use for the port.
    :param secure: Whether the listener uses TLS with the server's certificate; an endpoint has its own, if any.
    """
    try:
        ip_address(host)
    except ValueError:
        if ":" in host:
            return parse_address(host, _NO_PORT)
    return Address("https" if secure else "http", host, port)
