# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in the handling of named keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from tests.testing.planted.bug import Concern, Planted, replacing
from twisted_serve.auth.gate import Authorizer, Denied
from twisted_serve.auth.keyring import Reason, Refused
from twisted_serve.auth.named.limits import Lease, Limited, Usage
from twisted_serve.auth.named.live import KeyIndex, LiveKey, NamedKeys
from twisted_serve.auth.named.records import NamedKey
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.named.store import KeyStore
from twisted_serve.auth.needs import Need
from twisted_serve.interfaces import Operation
from twisted_serve.planes.keys import KeysPlane
from twisted_serve.planes.live_keys import LiveKeys
from twisted_serve.web.http.request import ServeRequest

_problem = LiveKey.problem
_indexed = NamedKeys.indexed
_check = NamedKeys.check
_use = NamedKeys.use
_allows = KeyScopes.allows
_enter = Usage.enter
_judge = Authorizer._judge
_fresh = KeysPlane._fresh
_lost = ServeRequest.connectionLost
_transaction = KeyStore.transaction

_KEY = r"^the (replaced )?key (ada|bob) "

# A key that is accepted opens, or is answered otherwise, if its scopes or limits do not allow what was asked.
OPENED = _KEY + "(opened|was answered with (403|429)[, ]).*"
NOT_OPENED = _KEY + "(did not open|was answered with 4..).*"


def _judging(judge: Callable[[LiveKey, datetime], Reason | None]) -> Callable[[], AbstractContextManager[None]]:
    """Let a function decide whether a key is good."""
    return replacing(LiveKey, problem=judge)


def _inclusive(self: LiveKey, now: datetime) -> Reason | None:
    """Accept a key at the instant of its expiry."""
    return _problem(self, now - timedelta(microseconds=1) if now == self.record.expires else now)


def _enabled(self: LiveKey, now: datetime) -> Reason | None:
    return _problem(evolve(self, record=evolve(self.record, disabled=False)), now)


def _forgetful(self: LiveKey, now: datetime) -> Reason | None:
    """Judge by the date alone."""
    self.state.ended = self.state.outlived = None
    return _problem(self, now)


def _longer(self: LiveKey, now: datetime) -> Reason | None:
    """Accept a replaced secret for a microsecond more."""
    until = self.until
    return _problem(self if until is None else evolve(self, until=until + timedelta(microseconds=1)), now)


def _no_overlap(self: LiveKey, now: datetime) -> Reason | None:
    return _problem(self, now) if self.until is None else Reason.EXPIRED


def _endless(self: LiveKey, now: datetime) -> Reason | None:
    """Accept a replaced secret for as long as its key."""
    return _problem(evolve(self, until=None), now)


@contextmanager
def _verdicts_kept() -> Iterator[None]:
    """Remember which secrets are those of keys."""
    known: dict[tuple[int, bytes], LiveKey] = {}

    def check(self: NamedKeys, presented: bytes, now: datetime) -> LiveKey | Refused:
        found = _check(self, presented, now)
        if isinstance(found, LiveKey):
            known[id(self), presented] = found
            return found
        kept = known.get((id(self), presented))
        return kept if kept is not None and found.reason is Reason.UNKNOWN else found

    with replacing(NamedKeys, check=check)():
        yield


def _old_secrets_kept(self: NamedKeys, records: Iterable[NamedKey]) -> KeyIndex:
    """Keep the secrets of keys that still exist."""
    index = _indexed(self, records)
    old = {digest: live for digest, live in self.index.by_digest.items() if live.record.name in index.by_name}
    return evolve(index, by_digest={**old, **index.by_digest})


def _prefix(self: KeyScopes, model: str) -> bool:
    return Operation.PREDICT in self._operations or any(model.startswith(p.rstrip("*")) for p in self._patterns)


def _substring(self: KeyScopes, model: str) -> bool:
    return Operation.PREDICT in self._operations or any(p.strip("*") in model for p in self._patterns)


def _any_case(self: KeyScopes, model: str) -> bool:
    return Operation.PREDICT in self._operations or any(p.lower() == model.lower() for p in self._patterns)


def _write_reads(self: KeyScopes, need: Need) -> bool:
    """Let the scope that changes models read them, too."""
    wider = KeyScopes((*self.texts, "models:read")) if "models:write" in self.texts else self
    return _allows(wider, need)


def _inference_reads(self: KeyScopes, need: Need) -> bool:
    """Let a key list the models, only some of which it may see."""
    return need.operation is Operation.LIST_MODELS or _allows(self, need)


def _forgiving(self: Usage) -> Lease | Limited:
    """Let the bucket fill while requests are refused."""
    taken = _enter(self)
    if isinstance(taken, Limited):
        self._spent = max(0, self._spent - 10**10)
    return taken


def _counting_refused(self: Usage) -> Lease | Limited:
    """Count refused requests, too."""
    taken = _enter(self)
    if isinstance(taken, Limited) and self._rate is not None:
        self._spent += 60 * 10**9
    return taken


def _twice_as_fast(self: Usage, rate: int) -> None:
    now = self._now()
    self._spent = max(0, self._spent - 2 * rate * max(0, now - self._seen))
    self._seen = now


def _not_changed(self: NamedKeys, index: KeyIndex) -> None:
    """Leave the limits of a key as they were when it was made."""
    new = [live for live in index.changed if live.record.name not in self.index.by_name]
    _use(self, evolve(index, changed=new))


def _never_left(self: ServeRequest, reason: Any) -> None:
    """Give no place back when a client disconnects."""
    self.sender = None
    _lost(self, reason)


def _alone(self: LiveKeys, forced: bool = False) -> None:
    """Ignore what other servers do to the file."""


def _lost_revocation(self: KeyStore, change: Any) -> Any:
    """Do not write a file with fewer keys."""
    before = self.records
    wanted = change(before)
    return wanted if len(wanted) < len(before) else _transaction(self, change)


def _not_saved(self: KeyStore, change: Any) -> Any:
    """Change the keys in memory alone."""
    return change(self.records)


def _honest(found: LiveKey | Refused, need: Need, kind: Any) -> Any:
    """Refuse requests for models that do not exist otherwise."""
    verdict = _judge(found, need, kind)
    if isinstance(verdict, Denied) and verdict.reason is Reason.SCOPE and need.model == "gamma":
        return evolve(verdict, need=evolve(need, operation=None))
    return verdict


def _told(self: KeysPlane, records: Any) -> tuple[str, str]:
    """Log the secret of a new key."""
    secret, digest = _fresh(self, records)
    Logger("twisted_serve.auth").info("made {secret}", secret=secret)
    return secret, digest


NAMED = (
    Planted("expiry inclusive", Concern.NAMED, OPENED + "it has expired", _judging(_inclusive)),
    Planted("disabled ignored", Concern.NAMED, OPENED + "it is disabled$", _judging(_enabled)),
    Planted(
        "opens when the date is set back", Concern.NAMED, OPENED + "(it has expired|is over)$", _judging(_forgetful)
    ),
    Planted("overlap a microsecond too long", Concern.NAMED, OPENED + "its overlap is over$", _judging(_longer)),
    Planted("overlap ignored", Concern.NAMED, NOT_OPENED, _judging(_no_overlap)),
    Planted("overlap without end", Concern.NAMED, OPENED + "its overlap is over$", _judging(_endless)),
    Planted(
        "revoked key cached",
        Concern.NAMED,
        r"^a former key (ada|bob) (opened|was answered).* although it was ",
        _verdicts_kept,
    ),
    Planted(
        "rotation keeps the old secret",
        Concern.NAMED,
        r"^(a former|the replaced) key (ada|bob) (opened|was answered) ",
        replacing(NamedKeys, indexed=_old_secrets_kept),
    ),
    Planted("pattern as a prefix", Concern.NAMED, OPENED + "its scopes ", replacing(KeyScopes, sees=_prefix)),
    Planted("pattern as a substring", Concern.NAMED, OPENED + "its scopes ", replacing(KeyScopes, sees=_substring)),
    Planted("pattern in any case", Concern.NAMED, _KEY, replacing(KeyScopes, sees=_any_case)),
    Planted("models:write reads", Concern.NAMED, OPENED + "GET /models", replacing(KeyScopes, allows=_write_reads)),
    Planted("all list models", Concern.NAMED, OPENED + "GET /models ", replacing(KeyScopes, allows=_inference_reads)),
    Planted("rate refills while refused", Concern.NAMED, _KEY, replacing(Usage, enter=_forgiving)),
    Planted("refused requests count", Concern.NAMED, _KEY, replacing(Usage, enter=_counting_refused)),
    Planted("rate refills too fast", Concern.NAMED, _KEY, replacing(Usage, _forget=_twice_as_fast)),
    Planted("limits do not change", Concern.NAMED, _KEY, replacing(NamedKeys, use=_not_changed)),
    Planted(
        "place lost on disconnect",
        Concern.NAMED,
        NOT_OPENED + ": 429$",
        replacing(ServeRequest, connectionLost=_never_left),
    ),
    Planted(
        "other servers ignored",
        Concern.NAMED,
        r"^(GET /keys (has|says)|(the|a former) key )",
        replacing(LiveKeys, look=_alone),
    ),
    Planted(
        "revocation not saved",
        Concern.NAMED,
        r"^keys.json (has the keys|does not have the key) ",
        replacing(KeyStore, transaction=_lost_revocation),
    ),
    Planted("nothing saved", Concern.NAMED, r"^keys.json ", replacing(KeyStore, transaction=_not_saved)),
    Planted(
        "refusal tells which models exist",
        Concern.NAMED,
        r"^the refusals of .* differ for the key ",
        replacing(Authorizer, _judge=staticmethod(_honest)),
    ),
    Planted("secret logged", Concern.NAMED, r"^a log line has the secret of a key", replacing(KeysPlane, _fresh=_told)),
)
