# SPDX-License-Identifier: Apache-2.0
"""
Generate requests: the server's own paths, similar paths, and arbitrary ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_letters, digits

from attrs import field, frozen
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["ClientRequest", "client_requests", "methods", "targets"]

_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")

# Segments of the server's paths, and segments that attackers use.
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
    A client's request.

    :ivar target: As it is in the request line.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""

    def render(self, *more: str) -> bytes:
        """Return the request as bytes for a connection, with ``more`` header lines."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: h", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, *more, "", ""]).encode("latin-1") + self.body


def methods() -> SearchStrategy[str]:
    """Generate methods that some route may accept."""
    return st.sampled_from(_METHODS)


def targets() -> SearchStrategy[str]:
    """Generate request targets: paths of the server, similar paths, and others."""
    segments = st.sampled_from(_SEGMENTS + _ODD_SEGMENTS) | st.text(ascii_letters + digits, max_size=8)
    paths = st.lists(segments, max_size=4).map("/".join)
    parts = st.tuples(st.sampled_from(("/", "//", "http://h/")), paths, st.sampled_from(_QUERIES))
    return parts.map("".join)


@st.composite
def client_requests(draw: st.DrawFn) -> ClientRequest:
    """Generate arbitrary requests, none with a valid key."""
    names = st.sampled_from(("Content-Type", "X-Custom", "Accept", "Cookie", "explain", "url_path"))
    values = st.text(_HEADER_CHARACTERS, max_size=20)
    headers = draw(st.dictionaries(names, values, max_size=3))
    return ClientRequest(draw(methods()), draw(targets()), headers, draw(st.binary(max_size=40)))
