# SPDX-License-Identifier: Apache-2.0
"""
Define one key of a store of named keys.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from attrs import field, frozen
from attrs.validators import instance_of

from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.tokens import aware

#: The names that keys may have.
NAME = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}"

_NAME = re.compile(NAME)
_HEXADECIMAL = "0123456789abcdef"

# More requests a minute, or at once, than any server answers.
MOST = 10**9


def _limit(_instance: object, attribute: Any, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ValueError(f"{attribute.name} is {value!r}, expected a whole number from 1 to {MOST}, or null")


def _name(_instance: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError(
            f"name is {value!r}, expected 1 to 64 letters, digits, dots, hyphens and underscores, "
            "the first a letter or a digit"
        )


def _switch(_instance: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} is {value!r}, expected true or false")


def _digest(_instance: object, attribute: Any, value: Any) -> None:
    # For thousands of keys this takes a sixth of a regular expression's time.
    if not isinstance(value, str) or len(value) != 64 or value.strip(_HEXADECIMAL):
        raise ValueError(f"{attribute.name} is no SHA-256 digest of 64 hexadecimal digits")


def _moment(instance: object, attribute: Any, value: Any) -> None:
    if isinstance(value, datetime) and value.tzinfo is timezone.utc:
        # Each date of a store is one of these: the fast way for thousands.
        return
    if not isinstance(value, datetime):
        raise ValueError(f"{attribute.name} is {value!r}, expected a date with a time zone")
    aware(instance, attribute, value)
    try:
        value.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError(f"{attribute.name} is {value.isoformat()}, which is no date in UTC") from None


def _moment_or_never(instance: object, attribute: Any, value: Any) -> None:
    if value is not None:
        _moment(instance, attribute, value)


@frozen
class Former:
    """
    The secret that a key had before its rotation.

    :ivar sha256: The digest of the secret, hexadecimal.
    :ivar until: The first moment at which the secret is refused.
    """

    sha256: str = field(validator=_digest, repr=False)
    until: datetime = field(validator=_moment)


@frozen
class NamedKey:
    """
    A named key, without its secret.

    :ivar sha256: The digest of the secret, hexadecimal.
    :ivar expires: The first moment at which the key is refused; ``None`` for never.
    :ivar rate: Requests a minute; ``None`` for any number.
    :ivar concurrent: Requests at the same time; ``None`` for any number.
    :raise ValueError: naming the field and its value.
    """

    name: str = field(validator=_name)
    sha256: str = field(validator=_digest, repr=False)
    scopes: KeyScopes = field(validator=instance_of(KeyScopes))
    created: datetime = field(validator=_moment)
    expires: datetime | None = field(default=None, validator=_moment_or_never)
    disabled: bool = field(default=False, validator=_switch)
    rate: int | None = field(default=None, validator=_limit)
    concurrent: int | None = field(default=None, validator=_limit)
    former: Former | None = None

    @property
    def id(self) -> str:
        """The public id, the name of the secret in logs: as `auth.tokens.public_id` of the secret."""
        return self.sha256[:8]
