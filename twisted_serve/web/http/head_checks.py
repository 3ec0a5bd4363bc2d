# SPDX-License-Identifier: Apache-2.0
"""
Check the head of a request where RFC 9112 is stricter than Twisted's parser.

``docs/designs/http.md`` lists each sentence of the RFC with the responses of this server and of a plain Twisted site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from twisted_serve.errors import BadRequest, CodingNotImplemented, VersionNotSupported

# The number of cached checks of ``Host`` values.
_REMEMBERED = 256

#: The bytes that no field value may contain (RFC 9110 §5.5): all control characters but the horizontal tab.
CONTROLS = bytes([*range(9), *range(10, 32), 127])

# Matches nearly all request lines; others are checked in detail.
_USUAL = re.compile(rb"[A-Z]+ /[!-~]* HTTP/1\.[01]").fullmatch

_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")

# RFC 3986 §3.2.2 and RFC 9110 §7.2: a name, an IPv4 address, or an address in brackets, and a port.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|\[v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)

# A target in absolute form, as clients send it to proxies.
_ABSOLUTE = re.compile(rb"(?i)https?://([^/?#]*)")

_FIELD_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")


def _malformed(reason: str) -> BadRequest:
    """Return the error for a malformed head; the message is TorchServe's."""
    error = BadRequest("Invalid HTTP message.")
    error.reason = reason
    return error


def checked_request_line(line: bytes) -> bytes:
    """
    Check a request line and return it with the HTTP version to handle it as.

    Lines that Twisted's parser refuses are left to it.

    :raise BadRequest: for a line with characters outside of printable ASCII, or a target in absolute form without a
        valid host.
    :raise VersionNotSupported: for another major version.
    """
    if _USUAL(line) is not None:
        return line
    start, _, version = line.rpartition(b" ")
    if version != b"HTTP/1.1" and (match := _VERSION.fullmatch(version)):
        if match[1] != b"1":
            raise VersionNotSupported(f"HTTP version {match[1].decode()}.{match[2].decode()} is not supported, 1.1 is.")
        if match[2] > b"1":
            # RFC 9110 §2.5: a higher minor version is handled as the highest one that the server supports.
            line = start + b" HTTP/1.1"
    if not line.isascii() or b"\x7f" in line:
        raise _malformed("the request line has a character outside of printable ASCII")
    target = start.partition(b" ")[2]
    if not target.startswith(b"/") and (absolute := _ABSOLUTE.match(target)):
        authority = absolute[1]
        if not authority or authority.startswith(b":") or not is_host(authority):
            # Not shown, because it may contain a password.
            raise _malformed("the host of the request target cannot be used")
    return line


def control_in(line: bytes) -> BadRequest:
    """Return the error for a header field with a control character."""
    return _malformed(f"the header {_shown(line.partition(b':')[0])} has a control character")


def folding() -> BadRequest:
    """Return the error for a header that continues on a second line (``obs-fold``)."""
    return _malformed("obsolete line folding: a line of the head begins with whitespace")


def flaw_of_hosts(hosts: Sequence[bytes], version: bytes) -> BadRequest | None:
    """Return the error if a request has several ``Host`` headers, none in HTTP/1.1, or an invalid one."""
    if len(hosts) > 1:
        return _malformed(f"the header Host is there {len(hosts)} times")
    if hosts and not is_host(hosts[0]):
        return _malformed(f"the header Host is {_shown(hosts[0])}, which is no host")
    if not hosts and version != b"HTTP/1.0":
        return _malformed("the header Host is missing")
    return None


@lru_cache(_REMEMBERED)
def is_host(value: bytes) -> bool:
    """Return whether a value is a host, with or without a port, or is empty."""
    return _HOST.fullmatch(value) is not None


def check_coding(value: bytes, version: bytes) -> None:
    """
    Check a ``Transfer-Encoding`` header; only ``chunked`` is supported.

    :raise BadRequest: for HTTP/1.0, and if the codings do not determine the end of the body.
    :raise CodingNotImplemented: for other codings applied before ``chunked``.
    """
    if version == b"HTTP/1.0":
        raise _malformed("the header Transfer-Encoding does not exist in version 1.0")
    *others, last = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if last != b"chunked":
        raise _malformed(f"the header Transfer-Encoding is {_shown(value)}: its last coding must be chunked")
    if b"chunked" in others or b"identity" in others or b"" in others:
        raise _malformed(f"the header Transfer-Encoding is {_shown(value)}")
    if others:
        raise CodingNotImplemented(f"The transfer coding {_shown(others[0])} is not supported, chunked is.")


def check_trailers(lines: Iterable[bytes]) -> None:
    """
    Check the trailer section of a chunked body; the caller discards it afterwards.

    :raise BadRequest: for a line that is not a header field.
    """
    for line in lines:
        name, colon, _value = bytes(line).partition(b":")
        if not (colon and _FIELD_NAME.fullmatch(name)):
            raise _malformed(f"the trailer section has {_shown(bytes(line))}")
        if bytes(line).translate(None, CONTROLS) != line:
            raise control_in(bytes(line))


def _shown(value: bytes) -> str:
    """Return a client's bytes, shortened, for the text of an error."""
    return ascii(value[:60].decode("latin-1"))
