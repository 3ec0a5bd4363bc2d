# SPDX-License-Identifier: Apache-2.0
"""
Map a document's keys to the attributes of a frozen class.

The metadata of each attribute names its key; each validator rejects values of another type with the key, the value and
the expected type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
from attrs import field

# An integer as text, limited in length.
_DIGITS = re.compile(r"[-+]?[0-9]{1,10}", re.ASCII)

_BOOLEANS = {"true": True, "false": False}

# The maximum of TorchServe's integers.
_MAX_INTEGER = (1 << 31) - 1

_T = TypeVar("_T", bound=attrs.AttrsInstance)


def number_of(value: Any) -> Any:
    """Convert ``"1"`` and ``1.0`` to an integer; return other values unchanged."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def boolean_of(value: Any) -> Any:
    """Convert ``"true"`` and ``"false"`` to a boolean; return other values unchanged."""
    return _BOOLEANS.get(value.lower(), value) if isinstance(value, str) else value


def key(
    name: str,
    expected: str,
    fits: Callable[[Any], bool],
    default: object = None,
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """
    Declare the attribute for a key; an absent key and ``null`` give ``default``.

    :param name: The key; in a section, prefixed with the section's name and a dot.
    :param convert: Converts alternative spellings to a value.
    """

    def check(_value: object, _attribute: object, value: Any) -> None:
        if value is not None and not fits(value):
            raise wrong(name, value, expected)

    return field(default=default, validator=check, converter=convert, metadata={"key": name.rpartition(".")[2]})


def integer(name: str, least: int, default: int | None = None, most: int = _MAX_INTEGER) -> Any:
    """Declare the attribute for a key with an integer value."""
    expected = f"an integer of at least {least}" if most == _MAX_INTEGER else f"an integer from {least} to {most}"

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return key(name, expected, fits, default, number_of)


def boolean(name: str) -> Any:
    """Declare the attribute for a key with a boolean value."""
    return key(name, "true or false", lambda value: isinstance(value, bool), convert=boolean_of)


def word(name: str, default: str | None = None) -> Any:
    """Declare the attribute for a key with a string value."""
    return key(name, "a string", lambda value: isinstance(value, str), default)


def wrong(name: str, value: object, expected: str) -> ValueError:
    """Return the error for a value that a key does not accept."""
    return ValueError(f"{name} is {value!r:.200}, expected {expected}")


def attributes_of(declared: type[attrs.AttrsInstance]) -> Mapping[str, str]:
    """Return the keys that a class declares, with the attribute of each."""
    return {a.metadata["key"]: a.name for a in attrs.fields(declared) if "key" in a.metadata}


def section(declared: type[_T], name: str, value: object) -> _T:
    """
    Parse a section of a document; keys that ``declared`` does not have are ignored.

    :raise ValueError: if the section is not a mapping, or a key has a value of the wrong type.
    """
    found = mapping(name, value)
    known = attributes_of(declared)
    return declared(**{known[each]: found[each] for each in known if found.get(each) is not None})


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """
    Return ``value``, the value of the key ``name``, checked to be a mapping.

    :raise ValueError: if it is not a mapping with strings as keys.
    """
    if not isinstance(value, dict):
        raise wrong(name, value, "a mapping")
    if not all(isinstance(each, str) for each in value):
        raise wrong(name, value, "a mapping with strings as keys")
    return value
