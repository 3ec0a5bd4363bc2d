# SPDX-License-Identifier: Apache-2.0
"""
Hold the named keys of a store as one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from twisted_serve.auth.named.records import NamedKey

__all__ = ["KeyRecords", "NameTakenError", "NoSuchKeyError"]


class NoSuchKeyError(LookupError):
    """The store has no key of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No key has the name {name!r}.")


class NameTakenError(ValueError):
    """The store has a key of this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"A key has the name {name!r} already.")


class KeyRecords:
    """
    Named keys in the order of their creation; a value: each change returns another one.

    No two of them have the same name, public id, or digest of a secret, former secrets included.

    :raise ValueError: naming two keys that have.
    """

    __slots__ = ("_by_name",)

    def __init__(self, records: Iterable[NamedKey] = ()) -> None:
        self._by_name: Final = _distinct(records)

    def __iter__(self) -> Iterator[NamedKey]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyRecords) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def of(self, name: str) -> NamedKey:
        """
        Return the key with a name.

        :raise NoSuchKeyError: if there is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise NoSuchKeyError(name) from None

    def adding(self, record: NamedKey) -> KeyRecords:
        """
        Return these keys and one more.

        :raise NameTakenError: if one has its name.
        :raise ValueError: if one has its id or secret.
        """
        if record.name in self._by_name:
            raise NameTakenError(record.name)
        return KeyRecords((*self, record))

    def replacing(self, record: NamedKey) -> KeyRecords:
        """
        Return these keys with another record of one of them, in its place.

        :raise NoSuchKeyError: if there is none with its name.
        :raise ValueError: if another one has its id or secret.
        """
        self.of(record.name)
        return KeyRecords({**self._by_name, record.name: record}.values())

    def without(self, name: str) -> KeyRecords:
        """
        Return these keys without one of them.

        :raise NoSuchKeyError: if there is none with this name.
        """
        self.of(name)
        return KeyRecords(record for record in self if record.name != name)


def _distinct(records: Iterable[NamedKey]) -> dict[str, NamedKey]:
    found = list(records)
    by_name = {record.name: record for record in found}
    # An id is the beginning of a digest: where all ids differ, the digests do.
    ids = {record.id for record in found}
    if not len(found) == len(by_name) == len(ids) or any(record.former is not None for record in found):
        _refuse_equal(found)
    return by_name


def _refuse_equal(records: list[NamedKey]) -> None:
    """
    Refuse keys that have the same name, id or secret.

    :raise ValueError: naming the first two, and the field.
    """
    owners: dict[tuple[str, str], str] = {}
    for record in records:
        claims = [("name", record.name), ("sha256", record.sha256), ("id", record.id)]
        if record.former is not None:
            claims.append(("sha256", record.former.sha256))
        for claim in claims:
            if claim in owners:
                raise ValueError(f"{claim[0]} is the same of the keys {owners[claim]!r} and {record.name!r}")
            owners[claim] = record.name
