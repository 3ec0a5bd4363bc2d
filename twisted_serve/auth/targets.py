# SPDX-License-Identifier: Apache-2.0
"""
Parse a request target (RFC 9112 §3.2) into path segments and a query.

Targets are parsed only here, and both authorization and routing use the result: two
parsers that disagree about a path are how authorization gets bypassed.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_to_bytes

from attrs import frozen

# How many parsed targets are cached: authorization, routing and other clients ask for the same ones.
_CACHE_SIZE = 256

_HEX = frozenset(b"0123456789abcdefABCDEF")


# The hash is cached because targets are the keys of caches that every request uses.
@frozen(cache_hash=True)
class Target:
    """
    The parsed target of a request.

    :ivar segments: The decoded path segments; trailing empty ones are dropped, so
        ``/models/`` is ``/models`` (``docs/torchserve/rest_api.md`` §2.1).
    :ivar query: The raw query, without the question mark.
    :ivar flaw: The reason why the path is malformed, or ``None``.  A malformed target has
        no segments: it matches no route, however a proxy may have understood it.
    """

    segments: tuple[str, ...]
    query: bytes = b""
    flaw: str | None = None

    @property
    def first(self) -> str | None:
        """The first segment, ``None`` for the root."""
        return self.segments[0] if self.segments else None


def _decode(segment: bytes) -> str:
    """
    Decode one segment.

    :raise ValueError: with the reason why the segment is not acceptable.
    """
    if b"%" in segment:
        for escape in segment.split(b"%")[1:]:
            if len(escape) < 2 or not _HEX.issuperset(escape[:2]):
                raise ValueError("an unfinished percent escape")
        segment = unquote_to_bytes(segment)
    try:
        text = segment.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("bytes that are not UTF-8") from None
    if text in (".", ".."):
        raise ValueError("a dot segment")
    if "/" in text or "\\" in text:
        raise ValueError("an escaped slash or a backslash")
    if not text.isprintable():
        raise ValueError("a character that cannot be printed")
    return text


@lru_cache(_CACHE_SIZE)
def parse_target(raw: bytes) -> Target:
    """Parse the target of a request as it stands in the request line; never raises."""
    path, _, _fragment = raw.partition(b"#")
    path, _, query = path.partition(b"?")
    if not path.startswith(b"/"):
        # The absolute form, which proxies send: only its path is used.
        scheme, separator, rest = path.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            return Target((), query, "it does not start with a slash")
        _authority, slash, rest = rest.partition(b"/")
        path = slash + rest
    parts = path.split(b"/")[1:]
    while parts and not parts[-1]:
        parts.pop()
    if parts and not parts[0]:
        # Some parsers read an authority after two slashes, others (Klein's among them) one slash.
        return Target((), query, "it begins with two slashes")
    try:
        return Target(tuple([_decode(part) for part in parts]), query)
    except ValueError as e:
        return Target((), query, f"it contains {e}")
