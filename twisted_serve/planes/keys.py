# SPDX-License-Identifier: Apache-2.0
"""
Manage keys with names: list, describe, create, change, revoke, rotate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import Any

from attrs import evolve

from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.key_file import instant
from twisted_serve.auth.named.collection import KeyRecords, NameTakenError, NoSuchKeyError
from twisted_serve.auth.named.live import KeyIndex, LiveKey
from twisted_serve.auth.named.records import Former, NamedKey
from twisted_serve.auth.named.scopes import KeyScopes, unmatched
from twisted_serve.auth.named.secrets import fresh_secret
from twisted_serve.auth.named.store import StoreError
from twisted_serve.auth.redaction import shown
from twisted_serve.auth.tokens import Entropy
from twisted_serve.errors import BadRequest, Conflict, InternalError, KeyNotFound
from twisted_serve.interfaces import Now
from twisted_serve.planes.live_keys import LiveKeys

#: The most keys on a page of a list, and where the client does not say how many.
MOST_ON_A_PAGE = 100

# The id of a secret has 32 bits: among thousands of keys a new one is taken once in a million times.
_ATTEMPTS = 5

#: What a client may give of a key besides its name, and change.
CHANGEABLE = frozenset({"scopes", "expires", "disabled", "rate", "concurrent"})


_ANY = KeyScopes(("console",))


class KeysPlane:
    """
    The use cases of named keys.

    Each change is complete when its coroutine has ended; the keys stay as they were when it raises.

    :ivar now: Returns the date.
    :param overlap: How long the secret of a key stays good that was replaced.
    :param models: Returns the names of the models and workflows that are registered.
    """

    def __init__(
        self,
        keys: LiveKeys,
        now: Now,
        entropy: Entropy,
        audit_log: AuditLog,
        models: Callable[[], Iterable[str]],
        overlap: timedelta = timedelta(0),
    ) -> None:
        self._keys = keys
        self.now = now
        self._entropy = entropy
        self._audit_log = audit_log
        self._models = models
        self._overlap = overlap

    def list_keys(self, limit: int, offset: int) -> dict[str, Any]:
        """
        Return one page of the keys, in the order of their creation.

        :param limit: How many; a number that is not from 1 to `MOST_ON_A_PAGE` counts as that.
        """
        keys = self._keys.named.index.by_name
        size = limit if 0 < limit <= MOST_ON_A_PAGE else MOST_ON_A_PAGE
        start = max(0, offset)
        listing: dict[str, Any] = {}
        if start + size < len(keys):
            listing["nextPageToken"] = str(start + size)
        listing["keys"] = [_described(key) for key in islice(keys.values(), start, start + size)]
        return listing

    def describe(self, name: str) -> dict[str, Any]:
        """
        Return the description of a key.

        :raise KeyNotFound: if there is none of this name.
        """
        found = self._keys.named.index.by_name.get(name)
        if found is None:
            raise KeyNotFound.named(shown(name))
        return _described(found)

    async def create(self, by: str, name: str, **values: Any) -> dict[str, Any]:
        """
        Make a key, and return its description with its secret.

        :param by: The origin of the request, as it is logged.
        :param values: ``scopes``, and any other of `CHANGEABLE`.
        :raise BadRequest: naming a value that cannot be used.
        :raise Conflict: if a key has this name.
        :raise InternalError: if the file cannot be written.
        """
        now = self._checked(name, **values)
        secret = ""

        def adding(records: KeyRecords) -> KeyRecords:
            nonlocal secret
            if name in records:
                raise NameTakenError(name)
            secret, digest = self._fresh(records)
            return records.adding(NamedKey(name, digest, created=now, **values))

        key = (await self._change(name, adding)).by_name[name]
        self._audit_log.key_changed(key.record, f"created with the scopes {', '.join(key.record.scopes.texts)}", by)
        return {**self._with_warnings(key), "key": secret}

    async def change(self, by: str, name: str, **values: Any) -> dict[str, Any]:
        """
        Change a key, and return its description.

        :raise BadRequest: as `create`.
        :raise KeyNotFound: if there is none of this name.
        :raise InternalError: as `create`.
        """
        self._checked("unknown", **{"scopes": _ANY, **values})
        index = await self._change(name, lambda records: records.replacing(evolve(records.of(name), **values)))
        key = index.by_name[name]
        self._audit_log.key_changed(key.record, f"changed in {', '.join(values)}", by)
        return self._with_warnings(key)

    async def revoke(self, by: str, name: str) -> str:
        """
        Remove a key, which is refused from now on, and return what was done.

        :raise KeyNotFound: if there is none of this name.
        :raise InternalError: as `create`.
        """
        removed: NamedKey | None = None

        def removing(records: KeyRecords) -> KeyRecords:
            nonlocal removed
            removed = records.of(name)
            return records.without(name)

        await self._change(name, removing)
        if removed is not None:
            self._audit_log.key_changed(removed, "revoked", by)
        return f'Key "{name}" revoked'

    async def rotate(self, by: str, name: str) -> dict[str, Any]:
        """
        Replace the secret of a key, and return its description with the new one; the old one is good for the overlap.

        :raise KeyNotFound: if there is none of this name.
        :raise InternalError: as `create`.
        """
        now = self.now()
        secret = ""
        old = ""

        def rotating(records: KeyRecords) -> KeyRecords:
            nonlocal secret, old
            record = records.of(name)
            old = record.id
            secret, digest = self._fresh(records)
            former = Former(record.sha256, now + self._overlap) if self._overlap else None
            return records.replacing(evolve(record, sha256=digest, former=former))

        key = (await self._change(name, rotating)).by_name[name]
        self._audit_log.key_changed(key.record, f"given a new secret instead of {old}", by)
        return {**self._with_warnings(key), "key": secret}

    async def _change(self, name: str, change: Callable[[KeyRecords], KeyRecords]) -> KeyIndex:
        try:
            return await self._keys.change(change)
        except NoSuchKeyError:
            raise KeyNotFound.named(shown(name)) from None
        except NameTakenError as e:
            raise Conflict(str(e)) from None
        except StoreError as e:
            self._audit_log.keys_not_changed(e)
            raise InternalError(f"The keys stay as they were: {e}.") from e

    def _checked(self, name: str, **values: Any) -> datetime:
        """Check values before the file is locked, and return the time."""
        now = self.now()
        expires = values.get("expires")
        if expires is not None and expires <= now:
            raise BadRequest(f"expires is {instant(expires)}, which is over: it is {instant(now)}.")
        try:
            NamedKey(name, "0" * 64, created=now, **values)
        except ValueError as e:
            raise BadRequest(f"{shown(str(e))}.") from None
        return now

    def _fresh(self, records: KeyRecords) -> tuple[str, str]:
        """
        Return a new secret and its digest, whose id no key has; called in a thread.

        :raise RuntimeError: when the source of random bytes repeats itself.
        """
        taken = {record.id for record in records}
        for _ in range(_ATTEMPTS):
            secret = fresh_secret(self._entropy)
            digest = sha256(secret.encode("ascii")).hexdigest()
            if digest[:8] not in taken:
                return secret, digest
        raise RuntimeError("the source of random bytes is broken: it repeats itself")

    def _with_warnings(self, key: LiveKey) -> dict[str, Any]:
        described = _described(key)
        useless = unmatched(key.record.scopes, self._models())
        if useless:
            described["warnings"] = [f"{scope} matches no model that is registered now." for scope in useless]
        return described


def _described(key: LiveKey) -> dict[str, Any]:
    record, used = key.record, key.state.last_used
    return {
        "name": record.name,
        "id": record.id,
        "scopes": list(record.scopes.texts),
        "created": instant(record.created),
        "expires": None if record.expires is None else instant(record.expires),
        "disabled": record.disabled,
        "rate": record.rate,
        "concurrent": record.concurrent,
        "lastUsed": None if used is None else instant(used),
    }


def scopes_of(texts: Iterable[str]) -> KeyScopes:
    """
    Return scopes from their texts.

    :raise BadRequest: naming the text that is no scope.
    """
    try:
        return KeyScopes(tuple(dict.fromkeys(texts)))
    except ValueError as e:
        raise BadRequest(f"scopes: {shown(str(e))}.") from None
