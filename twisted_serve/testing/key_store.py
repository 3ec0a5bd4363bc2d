# SPDX-License-Identifier: Apache-2.0
"""
Check the file of named keys, and change it as another server does.

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import evolve

from twisted_serve.auth.key_file import instant
from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.store import KeyStore
from twisted_serve.testing.named_keys import Key

__all__ = ["change_elsewhere", "check_listing", "check_store", "revoke_elsewhere"]


def change_elsewhere(path: Path, name: str, **values: Any) -> None:
    """
    Change a key as another server does that shares the file.

    :raise AssertionError: if the file does not have it.
    """

    def changed(records: KeyRecords) -> KeyRecords:
        assert name in records, f"{path.name} does not have the key {name}"
        return records.replacing(evolve(records.of(name), **values))

    KeyStore(path).transaction(changed)


def revoke_elsewhere(path: Path, name: str) -> None:
    """
    Revoke a key as another server does that shares the file.

    :raise AssertionError: if the file does not have it.
    """

    def without(records: KeyRecords) -> KeyRecords:
        assert name in records, f"{path.name} does not have the key {name}"
        return records.without(name)

    KeyStore(path).transaction(without)


def check_listing(listed: Iterable[dict[str, Any]], keys: Iterable[Key], where: str) -> None:
    """
    Check that a list has exactly these keys, with their values.

    :param where: The list in words.
    :raise AssertionError: telling the difference.
    """
    found = {each["name"]: each for each in listed}
    expected = {key.name: key for key in keys}
    assert found.keys() == expected.keys(), f"{where} has the keys {sorted(found)}, not {sorted(expected)}"
    for name, key in expected.items():
        told = found[name]
        values: dict[str, Any] = {
            "scopes": list(key.scopes),
            "disabled": key.disabled,
            "rate": key.rate,
            "concurrent": key.concurrent,
            "expires": None if key.expires is None else instant(key.expires),
        }
        for field, value in values.items():
            given = told.get(field)
            same = _plain(given) == _plain(value) if field == "expires" else given == value
            assert same, f"{where} says that {field} of the key {name} is {given}, not {value}"


def check_store(path: Path, keys: Iterable[Key]) -> None:
    """
    Check that the file of named keys has exactly these keys, no secret, and that only its owner can read it.

    :raise AssertionError: telling the difference.
    """
    if not path.exists():
        assert not list(keys), f"{path.name} is missing"
        return
    mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text("utf-8")
    assert mode == 0o600, f"{path.name} has mode {mode:04o}"
    assert "tsk_" not in text, f"{path.name} has a secret in clear"
    try:
        listed = json.loads(text)["keys"]
    except (ValueError, LookupError) as e:
        raise AssertionError(f"{path.name} is not whole: {e}") from e
    check_listing(listed, keys, path.name)
    left = sorted(each.name for each in path.parent.glob(f".{path.name}*"))
    assert not left, f"{', '.join(left)} was left beside {path.name}"


def _plain(moment: str | None) -> str | None:
    """Return a date without zeros at its end, which mean nothing."""
    if moment is None or "." not in moment:
        return moment
    return moment.rstrip("Z").rstrip("0").rstrip(".") + "Z"
