# SPDX-License-Identifier: Apache-2.0
"""
Encode and decode the values of gRPC's headers: timeouts, status texts, binary metadata.

The source of each rule is gRPC's description of its protocol over HTTP/2.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from urllib.parse import unquote_to_bytes

from twisted_serve.errors import BadRequest

#: A day in seconds; longer than any client waits, and short enough for exact floating-point arithmetic.
MOST_TIMEOUT = 24 * 3600.0

#: Bytes of an encoded status text; clients refuse more than 8 KiB of metadata.
MOST_TEXT = 4096

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

# The bytes that a status text contains as they are: printable ASCII but the percent sign.
_TO_ENCODE = re.compile(rb"[^ -$&-~]")
_PART = re.compile(rb"%.?\Z")

_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")


def seconds_of(timeout: bytes) -> float:
    """
    Return the seconds that a ``grpc-timeout`` names, a day at most.

    :raise BadRequest: for anything but one to eight digits and a unit.
    """
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise BadRequest(
            "grpc-timeout must be up to eight digits and one of the units H M S m u n, "
            f"not {timeout[:40].decode('latin-1')!a}."
        )
    return min(int(match[1]) * _UNITS[match[2]], MOST_TIMEOUT)


def encoded_text(text: str) -> bytes:
    """Return the value of ``grpc-message``: UTF-8 in percent-encoding, cut after `MOST_TEXT` bytes."""
    encoded = _percent_encoded(text[:MOST_TEXT].encode("utf-8", "replace"))
    if len(encoded) > MOST_TEXT:
        # The rest of a character at the end is dropped.
        whole = unquote_to_bytes(_PART.sub(b"", encoded[:MOST_TEXT])).decode("utf-8", "ignore")
        encoded = _percent_encoded(whole.encode("utf-8"))
    return encoded


def _percent_encoded(plain: bytes) -> bytes:
    return _TO_ENCODE.sub(lambda match: b"%%%02X" % match[0][0], plain)


def decoded_text(value: bytes) -> str:
    """Return the text of a ``grpc-message``; bytes that are not UTF-8 are replaced."""
    return unquote_to_bytes(value).decode("utf-8", "replace")


def encoded_binary(value: bytes) -> bytes:
    """Return the value of a header whose name ends in ``-bin``, without padding."""
    return b64encode(value).rstrip(b"=")


def decoded_binary(value: bytes) -> bytes:
    """
    Return the bytes of a header whose name ends in ``-bin``.

    :raise BadRequest: for a value that is not base64, with or without padding.
    """
    if not _BASE64.fullmatch(value) or len(value.rstrip(b"=")) % 4 == 1:
        raise BadRequest(f"Binary metadata must be base64, not {value[:40].decode('latin-1')!a}.")
    bare = value.rstrip(b"=")
    return b64decode(bare + b"=" * (-len(bare) % 4))
