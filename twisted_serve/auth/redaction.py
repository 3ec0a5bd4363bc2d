# SPDX-License-Identifier: Apache-2.0
"""
This module implements the taking of keys out of what is written down of a request.

A client may put its key where it does not belong, into the path or the query;
the log must not have it then, in plain or percent-encoded, whoever reads the log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import unquote_to_bytes

REDACTED = b"<redacted>"

# How often a target may have been encoded over; nobody does it more than twice by accident.
_LAYERS = 4


def redacted(target: bytes, secrets: Collection[bytes]) -> bytes:
    """Return a request target without the secrets; if one is hidden by its encoding, nothing of the target."""
    for secret in secrets:
        target = target.replace(secret, REDACTED)
    text = target
    for _ in range(_LAYERS):
        if b"%" not in text:
            break
        text = unquote_to_bytes(text)
        if any(secret in text for secret in secrets):
            return REDACTED
    return target


#: Takes the keys out of a request target.
Redact = Callable[[bytes], bytes]


def redacting(secrets: Callable[[], Collection[bytes]], shortest: int) -> Redact:
    """
    Make what takes the secrets of the moment out of targets.

    :param shortest: The length of the shortest secret: a shorter target can hold none.
    """

    def redact(target: bytes) -> bytes:
        return target if len(target) < shortest else redacted(target, secrets())

    return redact
