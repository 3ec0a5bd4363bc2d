# SPDX-License-Identifier: Apache-2.0
"""
Redact keys from logged requests.

A client may put its key where it does not belong, into the path or the query; even
then the log must not contain it, neither in plain nor percent-encoded.  Of named keys the
server has digests only: their secrets are recognised by their form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import unquote_to_bytes

from twisted_serve.auth.named.secrets import FORM, PREFIX

REDACTED = b"<redacted>"

# How many layers of percent-encoding are undone; more than two do not happen by accident.
_MAX_LAYERS = 4

_PREFIX: Final = PREFIX.encode("ascii")
_NAMED: Final = re.compile(FORM.encode("ascii"))
_NAMED_TEXT: Final = re.compile(FORM)

# In characters, of a text that is quoted.
_LONGEST_QUOTE: Final = 300


def redacted(target: bytes, secrets: Collection[bytes]) -> bytes:
    """Return a request target with its secrets redacted; all of it is redacted if a secret is percent-encoded."""
    for secret in secrets:
        target = target.replace(secret, REDACTED)
    if _PREFIX in target:
        target = _NAMED.sub(REDACTED, target)
    text = target
    for _ in range(_MAX_LAYERS):
        if b"%" not in text:
            break
        text = unquote_to_bytes(text)
        if any(secret in text for secret in secrets) or (_PREFIX in text and _NAMED.search(text) is not None):
            return REDACTED
    return target


def shown(text: str) -> str:
    """Return a text that quotes a request, for an error: bounded, and without secrets of named keys."""
    clean = _NAMED_TEXT.sub(REDACTED.decode("ascii"), text)
    return clean if len(clean) <= _LONGEST_QUOTE else f"{clean[:_LONGEST_QUOTE]}..."


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
