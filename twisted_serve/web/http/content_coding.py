# SPDX-License-Identifier: Apache-2.0
"""
Inflate request bodies that are compressed according to ``Content-Encoding`` (RFC 9110 §8.4).

The inflated size is bounded during inflation, and so are the numbers of codings and of gzip members, since a small
body can inflate to a very large one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from twisted_serve.errors import BadRequest, RequestTooLarge, UnsupportedEncoding

#: In bytes. A larger compressed body is inflated in a thread: deflate expands a byte to about a thousand at most.
MOST_AT_ONCE = 4096

# The supported codings by name, with the alias from RFC 9110 §8.4.1.3.
_CODINGS = {b"gzip": b"gzip", b"x-gzip": b"gzip", b"deflate": b"deflate"}

# Bounds that no legitimate body exceeds.
_MOST_CODINGS = 3
_MOST_MEMBERS = 1000

_PIECE = 1 << 16

# zlib's numbers for a gzip member, for the format of RFC 1950, and for that of RFC 1951 alone.
_GZIP, _ZLIB, _RAW = 31, 15, -15


def codings_of(values: Sequence[bytes]) -> tuple[bytes, ...]:
    """
    Parse all ``Content-Encoding`` headers of a request.

    :return: The codings in the order in which they were applied, without ``identity``.
    :raise UnsupportedEncoding: for a coding other than gzip and deflate, or for too many codings.
    """
    names = [name.strip(b" \t").lower() for value in values for name in value.split(b",")]
    codings = tuple(_CODINGS.get(name, name) for name in names if name not in (b"", b"identity"))
    for coding in codings:
        if coding not in _CODINGS:
            raise UnsupportedEncoding(
                f"Content-Encoding {coding[:40].decode('latin-1')!a} is not supported: gzip and deflate are."
            )
    if len(codings) > _MOST_CODINGS:
        raise UnsupportedEncoding(f"Content-Encoding has {len(codings)} codings, more than {_MOST_CODINGS}.")
    return codings


def inflated(body: bytes, codings: Sequence[bytes], limit: int) -> bytes:
    """
    Undo the codings of a body, the last one first.

    :param limit: The most bytes after each coding.
    :raise BadRequest: for a body that does not match its coding, is truncated, or has trailing data.
    :raise RequestTooLarge: if the inflated body exceeds the limit.
    """
    for coding in reversed(codings):
        body = _inflated(body, coding, limit)
    return body


def _inflated(body: bytes, coding: bytes, limit: int) -> bytes:
    window = _GZIP if coding == b"gzip" else _ZLIB if _is_zlib(body) else _RAW
    inflater, members, size = zlib.decompressobj(window), 1, 0
    written = []
    try:
        for at in range(0, len(body), _PIECE):
            piece = body[at : at + _PIECE]
            while piece:
                if inflater.eof:
                    if window != _GZIP:
                        raise _wrong(coding, "something follows its end")
                    members += 1
                    if members > _MOST_MEMBERS:
                        raise _wrong(coding, f"it has more than {_MOST_MEMBERS} members")
                    inflater = zlib.decompressobj(window)
                written.append(inflater.decompress(piece, limit - size + 1))
                size += len(written[-1])
                if size > limit:
                    raise RequestTooLarge(f"The request body is, inflated, larger than {limit} bytes.")
                piece = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    except zlib.error as e:
        raise _wrong(coding, str(e)) from None
    if not inflater.eof:
        raise _wrong(coding, "it breaks off")
    return b"".join(written)


def _is_zlib(body: bytes) -> bool:
    """Return whether a body begins with an RFC 1950 header; some clients send raw RFC 1951 data, which has none."""
    return len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


def _wrong(coding: bytes, why: str) -> BadRequest:
    return BadRequest(f"The request body is not {coding.decode()}, as its Content-Encoding says: {why}.")
