# SPDX-License-Identifier: Apache-2.0
"""
Make the secrets of named keys, and recognise one that is mistyped.

A secret is ``tsk_``, 32 random characters of ``0-9A-Za-z`` (190 bits), and 6 such characters with the CRC-32 of all
before them.  So a scanner finds a leaked secret by its form, and a key that was mistyped or cut off is recognised
without a server.  The checksum protects from nothing else: it can be computed for any text.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from twisted_serve.auth.tokens import Entropy

__all__ = ["FORM", "LENGTH", "PATTERN", "PREFIX", "fresh_secret", "is_well_formed"]

#: How each secret of a named key begins; a key of ``key_file.json`` may, too, once in 2 ** 24 times.
PREFIX: Final = "tsk_"

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM: Final = 32
# 62 ** 6 is more than 2 ** 32.
_CHECKSUM: Final = 6

#: In characters.
LENGTH: Final = len(PREFIX) + _RANDOM + _CHECKSUM

#: The regular expression of a secret, wherever it stands: to redact it.
FORM: Final = rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM + _CHECKSUM}}}"

#: The same for scanners of texts that hold other long words.
PATTERN: Final = rf"\b{FORM}\b"

# The remainder of 48 random bytes by 62 ** 32: no value is likelier than another by more than one in 2 ** 193.
# Rejecting bytes instead would need a loop that a broken source of random bytes does not end.
_RANDOM_BYTES: Final = 48


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _checksum(text: str) -> str:
    return _base62(crc32(text.encode("ascii")), _CHECKSUM)


def fresh_secret(entropy: Entropy) -> str:
    """
    Return a new secret.

    :raise ValueError: when ``entropy`` returns fewer bytes than it is asked for.
    """
    drawn = entropy(_RANDOM_BYTES)
    if len(drawn) < _RANDOM_BYTES:
        raise ValueError(f"the source of random bytes has returned {len(drawn)} of {_RANDOM_BYTES}")
    text = PREFIX + _base62(int.from_bytes(drawn, "big") % len(_DIGITS) ** _RANDOM, _RANDOM)
    return text + _checksum(text)


def is_well_formed(text: str) -> bool:
    """
    Return whether a text has the form and the checksum of a secret; a made-up one may have both.

    Each change of up to four neighbouring characters before the checksum is recognised, and each change within it: so
    is each changed character, and each exchange of two neighbours but for the one at the border of the checksum, which
    passes once in 2 ** 32 times, as any other change does.
    """
    if len(text) != LENGTH or not text.isascii():
        return False
    body, checksum = text[:-_CHECKSUM], text[-_CHECKSUM:]
    return body.startswith(PREFIX) and body[len(PREFIX) :].isalnum() and checksum == _checksum(body)
