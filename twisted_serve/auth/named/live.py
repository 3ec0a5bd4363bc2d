# SPDX-License-Identifier: Apache-2.0
"""
Find named keys by their secrets, and check whether they are good now.

A server looks up the digest of what a client presents.  The time of a look-up depends on the digests in the store, and
not on how much of a secret matches: a client cannot choose the digest of a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from attrs import field, frozen, mutable

from twisted_serve.auth.keyring import Reason, Refused
from twisted_serve.auth.named.limits import Usage
from twisted_serve.auth.named.records import NamedKey


@mutable
class KeyState:
    """
    What a running server knows of a key besides its record; it lasts while the key has its name.

    :ivar usage: Its requests, under the limits of the record.
    :ivar last_used: When the key was last accepted; ``None`` if never since the start.
    :ivar ended: The expiry date that was seen to be over, which is final, even if the clock is set back.
    :ivar outlived: The digest of the replaced secret whose time was seen to be over, which is final, too.
    """

    usage: Usage
    last_used: datetime | None = None
    ended: datetime | None = None
    outlived: str | None = None


@frozen
class LiveKey:
    """
    A named key with one of its secrets.

    :ivar digest: SHA-256 of the secret, hexadecimal.
    :ivar until: The first moment at which this secret is refused, if it was replaced.
    """

    record: NamedKey
    digest: str = field(repr=False)
    state: KeyState
    until: datetime | None = None

    def problem(self, now: datetime) -> Reason | None:
        """Return why the key is not good at ``now``; ``None`` if it is."""
        record, state = self.record, self.state
        if record.disabled:
            return Reason.DISABLED
        expires = record.expires
        if expires is not None and (state.ended == expires or now >= expires):
            state.ended = expires
            return Reason.EXPIRED
        if self.until is not None and (state.outlived == self.digest or now >= self.until):
            state.outlived = self.digest
            return Reason.EXPIRED
        return None


@frozen
class KeyIndex:
    """
    The keys of a store, by name and by digest.

    :ivar by_digest: Those of secrets that were replaced as well.
    :ivar changed: The keys whose records are new, or differ from those of the index before.
    """

    by_name: Mapping[str, LiveKey] = field(factory=dict)
    by_digest: Mapping[str, LiveKey] = field(factory=dict)
    changed: Sequence[LiveKey] = ()


class NamedKeys:
    """
    The named keys of a server.

    :ivar index: The keys that count now; replaced as a whole.
    :param seconds: The clock's time, as ``IReactorTime.seconds``.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.index = KeyIndex()

    def indexed(self, records: Iterable[NamedKey]) -> KeyIndex:
        """
        Return the index of a store, in which keys that the server knows by name keep their state.

        It takes milliseconds for thousands of keys, and is called in a thread; one call at a time, followed by `use`.
        """
        by_name, by_digest, changed = {}, {}, []
        for record in records:
            live = self.index.by_name.get(record.name)
            if live is None or live.record is not record:
                state = live.state if live is not None else KeyState(Usage(self._seconds))
                live = LiveKey(record, record.sha256, state)
                changed.append(live)
            by_name[record.name] = by_digest[record.sha256] = live
            former = record.former
            if former is not None:
                by_digest[former.sha256] = LiveKey(record, former.sha256, live.state, former.until)
        return KeyIndex(by_name, by_digest, changed)

    def use(self, index: KeyIndex) -> None:
        """Use an index from now on."""
        self.index = index
        for live in index.changed:
            live.state.usage.change(live.record.rate, live.record.concurrent)

    def check(self, presented: bytes, now: datetime) -> LiveKey | Refused:
        """Return the key with a secret, if the key is good at ``now``."""
        return self._good(sha256(presented).hexdigest(), now)

    def check_again(self, key: LiveKey, now: datetime) -> LiveKey | Refused:
        """Return the key as it is now, if it is still good: for the next message of an open stream."""
        return self._good(key.digest, now)

    def _good(self, digest: str, now: datetime) -> LiveKey | Refused:
        live = self.index.by_digest.get(digest)
        if live is None:
            return Refused(Reason.UNKNOWN)
        problem = live.problem(now)
        if problem is not None:
            return Refused(problem, live.record.id)
        live.state.last_used = now
        return live
