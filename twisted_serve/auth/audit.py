# SPDX-License-Identifier: Apache-2.0
"""
Log and count refused requests and key rotations.

No line holds a key; lines name keys by their public id.  Every refusal is counted,
but refusals are logged at a bounded rate, so that a guessing client cannot fill the
disk.  Guessing locks no client out: a valid key is always accepted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime

from twisted.logger import Logger

from twisted_serve.auth.asking import Declined
from twisted_serve.auth.gate import Denied
from twisted_serve.auth.key_file import instant
from twisted_serve.auth.named.addresses import FirstUses
from twisted_serve.auth.named.records import NamedKey
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.interfaces import Refusal
from twisted_serve.interfaces.events import KeyRotated, Notify, ignore

_log = Logger("twisted_serve.auth")

# How many refusals of one peer are logged in each period, in seconds; the rest are summed up in one line.
LINES_PER_PERIOD = 10
PERIOD = 60.0

# How many peers are tracked; an attacker with more addresses evicts the oldest.
PEERS = 1024

#: The reason of a refusal that an application's authorizer has decided.
BY_AUTHORIZER = "authorizer"

# The outcome of a request that is not refused.
_ADMITTED = "admitted"

#: Counts a request with a named key, by its name and the outcome.
CountKey = Callable[[str, str], None]

#: Counts a refusal, by the kind of token that was needed and the reason.
CountRefusal = Callable[[str, str], None]


class _Peer:
    """The refusals of one peer in its current period."""

    __slots__ = ("began", "refused")

    def __init__(self, began: float) -> None:
        self.began = began
        self.refused = 0


class AuditLog:
    """
    The audit log of one server.

    :param seconds: The clock's time, as ``IReactorTime.seconds``.
    :param notify: Told of rotations.
    :param count_key: Counts requests with named keys.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        count_refusal: CountRefusal,
        count_rotation: Callable[[str], None],
        notify: Notify = ignore,
        count_key: CountKey = lambda _name, _outcome: None,
    ) -> None:
        self._notify = notify
        self._count_key = count_key
        self._seconds = seconds
        self._count_refusal = count_refusal
        self._count_rotation = count_rotation
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._first_uses = FirstUses(seconds)

    def refused(self, stop: Denied, peer: str, method: str, path: str) -> None:
        """Record that a request was refused."""
        self._count_refusal(stop.kind.value, stop.reason.value)
        if stop.name is not None:
            self._count_key(stop.name, stop.reason.value)
        if not self._has_line_left(peer):
            return
        _log.warn(
            "{audit}Refused {method} {path} from {peer}: {reason} token where the {kind} token is needed (key {key_id})"
            if stop.name is None
            else "{audit}Refused {method} {path} from {peer}: the key {name} ({key_id}) has no scope for it, or has "
            "reached a limit ({reason})",
            audit="AUDIT " if stop.kind is not TokenKind.INFERENCE else "",
            method=method,
            path=path,
            peer=peer,
            reason=stop.reason.value.replace("_", " "),
            kind=stop.kind.value,
            key_id=stop.key_id or "unknown",
            name=stop.name,
        )

    def declined(self, declined: Declined, peer: str, method: str, path: str) -> None:
        """Record that an application's authorizer has refused a request; its errors are logged where they occur."""
        if not isinstance(declined.answer, Refusal):
            return
        self._count_refusal(declined.scope.value, BY_AUTHORIZER)
        if self._has_line_left(peer):
            _log.warn(
                "{audit}Refused {method} {path} from {peer}: {status} by the authorizer",
                audit="AUDIT " if declined.scope is not TokenKind.INFERENCE else "",
                method=method,
                path=path,
                peer=peer,
                status=declined.answer.status,
            )

    def key_used(self, key: NamedKey, peer: str) -> None:
        """Record the first use of a named key from an address."""
        use = self._first_uses.note(key.name, peer)
        if use is None:
            return
        if use.unreported:
            _log.warn("AUDIT The key {name} was used from {count} more addresses", name=key.name, count=use.unreported)
        _log.info(
            "AUDIT The key {name} ({key_id}) is used from {peer} for the first time",
            name=key.name,
            key_id=key.id,
            peer=use.address,
        )

    def key_admitted(self, key: NamedKey) -> None:
        """Record that a request with a named key was admitted."""
        self._count_key(key.name, _ADMITTED)

    def key_changed(self, key: NamedKey, done: str, by: str) -> None:
        """
        Record that a named key was made, changed or removed.

        :param done: What was done, as a participle.
        :param by: The origin of the request for it, as it is logged.
        """
        _log.info("AUDIT The key {name} ({key_id}) was {done} by {by}", name=key.name, key_id=key.id, done=done, by=by)

    def keys_not_changed(self, error: Exception) -> None:
        """Record that a change of the named keys could not be saved."""
        _log.error("AUDIT The named keys stay as they were: {error}", error=error)

    def keys_gone(self, names: Iterable[str]) -> None:
        """Forget named keys that are gone."""
        for name in names:
            self._first_uses.forget(name)

    def rotated(self, old: Token, new: Token, by: str, until: datetime | None = None) -> None:
        """
        Record that a key was replaced.

        :param by: The origin of the request for it, as it is logged.
        :param until: When the old key ends, if it is still accepted.
        """
        self._count_rotation(new.kind.value)
        self._notify(KeyRotated(new.kind, old.public_id, new.public_id, new.expires, by))
        _log.info(
            "AUDIT The {kind} token was replaced by {by}: key {old} by key {new}, which {end}{overlap}",
            kind=new.kind.value,
            by=by,
            old=old.public_id,
            new=new.public_id,
            end="does not expire" if new.expires is None else f"expires at {instant(new.expires)}",
            overlap="" if until is None else f"; key {old.public_id} is accepted until {instant(until)}",
        )

    def rotation_failed(self, kind: TokenKind, error: Exception) -> None:
        """Record that a new key could not be saved."""
        _log.error(
            "AUDIT The {kind} token was not replaced: the key file cannot be written: {error}",
            kind=kind.value,
            error=error,
        )

    def not_saved_again(self, error: Exception) -> None:
        """Record that rewriting the key file with the live keys has failed."""
        _log.error("The key file was not written again: {error}", error=error)

    def _has_line_left(self, peer: str) -> bool:
        """Count a refusal of a peer, and return whether it may be logged."""
        record, suppressed = self._record_of(peer)
        record.refused += 1
        if suppressed:
            _log.warn("{count} more requests from {peer} were refused", count=suppressed, peer=peer)
        return record.refused <= LINES_PER_PERIOD

    def _record_of(self, peer: str) -> tuple[_Peer, int]:
        """Return a peer's record and how many lines were suppressed in a period that has just ended."""
        now = self._seconds()
        record = self._peers.pop(peer, None)
        suppressed = 0
        if record is not None and now - record.began >= PERIOD:
            suppressed = max(0, record.refused - LINES_PER_PERIOD)
            record = None
        record = record or _Peer(now)
        self._peers[peer] = record
        if len(self._peers) > PEERS:
            self._peers.popitem(last=False)
        return record, suppressed
