# SPDX-License-Identifier: Apache-2.0
"""
This module implements the strategies for requests: the server's own paths, paths near to them, and any others.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_letters, digits

from attrs import field, frozen
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["ClientRequest", "client_requests", "methods", "targets"]

_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")

# What the server's paths are made of, and what attackers put between.
_SEGMENTS = ("ping", "predictions", "models", "m", "1.0", "all", "token", "set-default", "livez", "readyz", "metrics")
_ODD_SEGMENTS = ("", ".", "..", "%2e%2e", "%2F", "%00", "%zz", "TOKEN", "token;x", "%74oken", "\\", "*")
_QUERIES = (
    "",
    "?",
    "?type=management",
    "?type=inference",
    "?type=x",
    "?min_worker=2",
    "?url=m&synchronous=false",
    "?&;=",
)

_HEADER_CHARACTERS = ascii_letters + digits + "-_.:/ "


@frozen
class ClientRequest:
    """
    What a client sends.

    :ivar target: As it stands in the request line.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""

    def render(self, *more: str) -> bytes:
        """Write the request as bytes for a connection, with ``more`` header lines."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: h", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, *more, "", ""]).encode("latin-1") + self.body


def methods() -> SearchStrategy[str]:
    """Build methods which some route may take."""
    return st.sampled_from(_METHODS)


def targets() -> SearchStrategy[str]:
    """Build request targets: paths of the server's, near to them, and of none."""
    segments = st.sampled_from(_SEGMENTS + _ODD_SEGMENTS) | st.text(ascii_letters + digits, max_size=8)
    paths = st.lists(segments, max_size=4).map("/".join)
    parts = st.tuples(st.sampled_from(("/", "//", "http://h/")), paths, st.sampled_from(_QUERIES))
    return parts.map("".join)


@st.composite
def client_requests(draw: st.DrawFn) -> ClientRequest:
    """Build requests of any client; none of them has a key."""
    names = st.sampled_from(("Content-Type", "X-Custom", "Accept", "Cookie", "explain", "url_path"))
    values = st.text(_HEADER_CHARACTERS, max_size=20)
    headers = draw(st.dictionaries(names, values, max_size=3))
    return ClientRequest(draw(methods()), draw(targets()), headers, draw(st.binary(max_size=40)))
