# SPDX-License-Identifier: Apache-2.0
"""
Redact keys from logged requests.

A client may put its key where it does not belong, into the path or the query; even
then the log must not contain it, neither in plain nor percent-encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import unquote_to_bytes

REDACTED = b"<redacted>"

# How many layers of percent-encoding are undone; more than two do not happen by accident.
_MAX_LAYERS = 4


def redacted(target: bytes, secrets: Collection[bytes]) -> bytes:
    """Return a request target with its secrets redacted; all of it is redacted if a secret is percent-encoded."""
    for secret in secrets:
        target = target.replace(secret, REDACTED)
    text = target
    for _ in range(_MAX_LAYERS):
        if b"%" not in text:
            break
        text = unquote_to_bytes(text)
        if any(secret in text for secret in secrets):
            return REDACTED
    return target


#: Redacts the keys of a request target.
Redact = Callable[[bytes], bytes]


def redacting(secrets: Callable[[], Collection[bytes]], shortest: int) -> Redact:
    """
    Return a function that redacts the current secrets of request targets.

    :param secrets: Returns the current secrets.
    :param shortest: The length of the shortest secret, in bytes: a shorter target cannot contain one.
    """

    def redact(target: bytes) -> bytes:
        return target if len(target) < shortest else redacted(target, secrets())

    return redact
