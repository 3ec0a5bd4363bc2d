# SPDX-License-Identifier: Apache-2.0
"""
Compute when keys end, from the moment of their creation or replacement, and check the key file against that.

Nothing here asks the server when a key expires: a server that is wrong about it would be believed.

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from math import inf
from pathlib import Path

from attrs import evolve, frozen

from twisted_serve.auth.key_file import instant
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer
from twisted_serve.testing.words import spell_duration

__all__ = ["Life", "Lives", "check_key_file", "check_left"]

_NOTHING = timedelta(0)

# How many replaced keys of a kind are accepted during their overlap, as docs/tokens.md says.
_MOST_FORMER = 4

# What is added to the overlap, by which the server itself replaces a key before its end.
_INTERVAL = timedelta(seconds=1)

# Seconds in which the server itself replaces a key that is due (``token_auto_rotate``); the last bit is not exact.
_PATIENCE = 1.000001


@frozen
class Life:
    """
    The life of a key, or of a replaced one for as long as it overlaps with its successor.

    :ivar expiry: Its end by the server's date.
    :ivar deadline: Its end in seconds of the clock that is never set.
    :ivar replaced: Whether it was replaced.
    :ivar rounded: Whether the deadline is only known to the microsecond, not to the last bit.
    """

    secret: str
    kind: TokenKind
    expiry: datetime
    deadline: float
    replaced: bool = False
    rounded: bool = False


class Lives:
    """
    The lives of a server's keys.

    :ivar lifetime: The lifetime of a key.
    :ivar overlap: How long a replaced key is accepted (``token_overlap_sec``).
    :ivar ahead: How long before its end the server replaces a key (``token_auto_rotate``); ``None`` if it does not.
    :ivar keeps: Whether the next start goes on with the live keys (``token_on_restart``).
    :ivar dead: The keys that are no longer live, oldest first: the kind of each, and how it ended.
    """

    def __init__(self, server: MemoryServer, kinds: Iterable[TokenKind]) -> None:
        options = server.options
        self._server = server
        self._kinds = tuple(kinds)
        self._live: dict[TokenKind, Life] = {}
        self._former: dict[TokenKind, list[Life]] = {kind: [] for kind in self._kinds}
        self._ended: set[str] = set()
        self._recorded = server.clock.seconds()
        self.lifetime = timedelta(minutes=options.token_expiration_min)
        self.overlap = timedelta(seconds=options.token_overlap_sec)
        self.ahead: timedelta | None = None
        if options.token_auto_rotate:
            self.ahead = min(self.overlap + _INTERVAL, self.lifetime / 2) if self.overlap else _NOTHING
        self.keeps = {"new": False, "keep": True}[options.token_on_restart]
        self.dead: dict[str, tuple[TokenKind, str]] = {}
        self._kind_of = {token.secret: token.kind for token in server.keys}
        for kind in self._kinds:
            self._live[kind] = self._new(kind, server.now(), self._recorded)

    def __iter__(self) -> Iterator[Life]:
        """Iterate over the keys that are not dead: the live one of each kind, and replaced ones."""
        yield from self._live.values()
        for lives in self._former.values():
            yield from lives

    def of(self, kind: TokenKind) -> Life:
        """Return the life of the live key of a kind."""
        return self._live[kind]

    def former(self, kind: TokenKind) -> list[Life]:
        """Return the lives of the replaced keys of a kind that may still be accepted, oldest first."""
        return self._former[kind]

    def left(self, life: Life) -> timedelta:
        """Return the time until a key ends, by its date or by its lifetime; negative after its end."""
        return min(self._left_by_date(life), self._left_of_lifetime(life))

    def look(self) -> None:
        """Record which keys have ended: they stay so, even if the date is set back."""
        self._ended |= {life.secret for life in self if self.left(life) <= _NOTHING and not self.undecided(life)}

    def ended(self, life: Life) -> bool:
        """Return whether a key had ended at the last look."""
        return life.secret in self._ended

    def has_ended(self, kind: TokenKind) -> bool:
        """Return whether the live key of a kind had ended at the last look; the API key does not end."""
        return kind in self._live and self.ended(self._live[kind])

    def undecided(self, life: Life) -> bool:
        """Return whether a key ends now by the clock that is never set, give or take the last bit of a number."""
        near = abs(self._left_of_lifetime(life)) <= timedelta.resolution
        return life.rounded and near and self._left_by_date(life) > _NOTHING and not self.ended(life)

    def how_long_ended(self, life: Life) -> str:
        """Return in words how long ago a key ended."""
        by_date, of_lifetime = self._left_by_date(life), self._left_of_lifetime(life)
        end = "its overlap was over" if life.replaced else "it had expired"
        if min(by_date, of_lifetime) > _NOTHING:
            return f"although {end} before the date was set back"
        if by_date <= of_lifetime:
            at = "the end of its overlap" if life.replaced else "the instant of its expiry"
            return f"{spell_duration(by_date)} after {end}" if by_date else f"at {at}"
        # The date was set back meanwhile: it says something else.
        ago = f"{spell_duration(of_lifetime)} after" if of_lifetime else "at"
        return f"{ago} the end of its {'overlap' if life.replaced else 'lifetime'}"

    def bury(self, before: Iterable[str], how: str) -> None:
        """Record which of the keys ``before`` were replaced, and how those ended that are no longer accepted."""
        self._kind_of.update({token.secret: token.kind for token in self._server.keys})
        for kind in self._kinds:
            old = self._live[kind]
            if self._server.key(kind) != old.secret:
                self._live[kind] = self._replaced(old, how)
        self._recorded = self._server.clock.seconds()
        accepted = {token.secret for token in self._server.keys} | {life.secret for life in self}
        self._bury((secret for secret in before if secret not in accepted), how)

    def begin_again(self, before: Iterable[str], kept: bool) -> None:
        """
        Record the keys of a new run of the server.

        :param kept: Whether the new run was to go on with the keys ``before`` that had not expired.
        :raise AssertionError: if a key was kept that had ended, or one was not that had not.
        """
        now, seconds = self._server.now(), self._server.clock.seconds()
        live = {token.secret for token in self._server.keys}
        expected = {secret for secret in before if kept and self._outlives(secret, now)}
        for secret in sorted(set(before)):
            name = self._kind_of[secret].value
            assert secret in live or secret not in expected, f"the {name} key, which had not ended, was not kept"
            assert secret not in live or secret in expected, (
                f"the {name} key, which had ended, was kept" if kept else "a key outlived the server's last run"
            )
        for kind in self._kinds:
            old, secret = self._live[kind], self._server.key(kind)
            self._former[kind], former = [], self._former[kind]
            self._bury((life.secret for life in former), "had ended with the last run of the server")
            if secret == old.secret:
                self._ended.discard(secret)
                # Its date is brought nearer if it is farther away than that of a new key.
                expiry = min(old.expiry, now + self.lifetime)
                left = (expiry - now).total_seconds()
                self._live[kind] = Life(secret, kind, expiry, seconds + left, rounded=True)
            else:
                self._live[kind] = self._new(kind, now, seconds)
        self._bury(set(before) - live, "had ended with the last run of the server")
        self._kind_of.update({token.secret: token.kind for token in self._server.keys})
        self._recorded = seconds

    def due(self) -> dict[TokenKind, tuple[Life, float]]:
        """Return the live keys that the server itself replaces, and when, by the clock that is never set."""
        if self.ahead is None:
            return {}
        now, due = self._server.clock.seconds(), {}
        for kind, life in self._live.items():
            left = _NOTHING if self.ended(life) else max(_NOTHING, self.left(life) - self.ahead)
            due[kind] = life, round(now + left.total_seconds(), 6)
        return due

    def next_stop(self) -> float:
        """Return when the server itself must have replaced the next key; infinity if it does not."""
        return min((round(at + _PATIENCE, 6) for _life, at in self.due().values()), default=inf)

    def check_replacements(self, due: Mapping[TokenKind, tuple[Life, float]]) -> None:
        """
        Check that the server itself has replaced the keys that were due, within a second, and no other one.

        :param due: The keys that were due before time passed.
        :raise AssertionError: naming the key.
        """
        now = self._server.clock.seconds()
        for kind, (life, at) in due.items():
            new = self._live[kind]
            if new.secret == life.secret:
                late = spell_duration(timedelta(seconds=now - at))
                assert now < at + _PATIENCE, f"token_auto_rotate did not replace the {kind.value} key in {late}"
            else:
                early = at - (new.deadline - self.lifetime.total_seconds())
                assert early < 1e-6, (
                    f"token_auto_rotate replaced the {kind.value} key {spell_duration(timedelta(seconds=early))} early"
                )

    def _new(self, kind: TokenKind, now: datetime, seconds: float, rounded: bool = False) -> Life:
        end = now + self.lifetime, seconds + self.lifetime.total_seconds()
        return Life(self._server.key(kind), kind, *end, rounded=rounded)

    def _replaced(self, old: Life, how: str) -> Life:
        """Record the end of a key that was replaced, and return the life of its successor."""
        kind, now, seconds = old.kind, self._server.now(), self._server.clock.seconds()
        age = self._age(kind) if self.ahead is not None else _NOTHING
        now, seconds = now - age, round(seconds - age.total_seconds(), 6) if age else seconds
        if self.overlap and now < old.expiry and seconds < old.deadline and not self.ended(old):
            expiry = min(old.expiry, now + self.overlap)
            deadline = min(old.deadline, seconds + self.overlap.total_seconds())
            life = evolve(old, expiry=expiry, deadline=deadline, replaced=True, rounded=old.rounded or bool(age))
            former = [*self._former[kind], life]
            self._former[kind] = former[-_MOST_FORMER:]
            too_many = [each.secret for each in former[:-_MOST_FORMER]]
            self._bury(too_many, f"had been replaced, and {_MOST_FORMER} others after it")
        return self._new(kind, now, seconds, rounded=bool(age))

    def _age(self, kind: TokenKind) -> timedelta:
        """
        Return how long ago the server itself created a key, which its date tells.

        :raise AssertionError: if that was not since the last look.
        """
        expires = self._server.keys.of(kind).expires
        assert expires is not None, f"the {kind.value} key does not expire"
        age = self._server.now() + self.lifetime - expires
        passed = timedelta(seconds=self._server.clock.seconds() - self._recorded)
        assert _NOTHING <= age <= passed, (
            f"the new {kind.value} key expires at {instant(expires)}, as if it had been made "
            f"{spell_duration(age)} {'ago' if age > _NOTHING else 'from now'}"
        )
        return age

    def _outlives(self, secret: str, now: datetime) -> bool:
        """
        Return whether a key that was live goes on in the next run of the server, if that keeps keys.

        The date alone decides, which is all that is in the file: also for a key that had ended before it was set back.
        """
        life = self._live.get(self._kind_of[secret])
        return life is None or (life.secret == secret and life.expiry > now)

    def _bury(self, secrets: Iterable[str], how: str) -> None:
        for secret in sorted(secrets):
            self.dead.setdefault(secret, (self._kind_of[secret], how))

    def _left_by_date(self, life: Life) -> timedelta:
        return life.expiry - self._server.now()

    def _left_of_lifetime(self, life: Life) -> timedelta:
        seconds = life.deadline - self._server.clock.seconds()
        # The rest of a microsecond is left, too: a duration must not be rounded to nothing before the end.
        return timedelta(seconds=seconds) or (timedelta.resolution if seconds > 0 else _NOTHING)


def check_key_file(server: MemoryServer, expiries: Mapping[TokenKind, datetime]) -> None:
    """
    Check that the key file has the live keys and these expiry dates, and that only its owner can read it.

    :raise AssertionError: telling the difference.
    """
    path = server.key_file
    assert path.exists(), f"{path.name} is missing while the server runs"
    mode = stat.S_IMODE(path.stat().st_mode)
    assert mode == 0o600, f"{path.name} has mode {mode:04o}"
    text = path.read_bytes()
    try:
        found = json.loads(text)
    except ValueError as e:
        raise AssertionError(f"{path.name} is not whole: {e}") from e
    assert list(found) == [kind.value for kind in TokenKind], f"{path.name} has the keys {list(found)}"
    for kind in TokenKind:
        name = kind.value
        assert found[name]["key"] == server.key(kind), f"{path.name} does not have the live {name} key"
        told, expected = found[name].get("expiration time"), expiries.get(kind)
        due = None if expected is None else instant(expected)
        assert told == due, f"{path.name} says that the {name} key expires at {told}, not at {due}"
    _check_siblings(path)


def check_left(path: Path, kept: Mapping[TokenKind, str] | None = None) -> None:
    """
    Check that a server that has stopped has left no key file, or one that the next start finds.

    :param kept: The keys that the file must have; ``None`` for no file.
    :raise AssertionError: naming the file that is there, or the key that is not.
    """
    if kept is None:
        assert not path.exists(), f"{path.name} was left behind when the server stopped"
    else:
        assert path.exists(), f"{path.name} was removed when the server stopped, although keys are kept"
        mode, found = stat.S_IMODE(path.stat().st_mode), json.loads(path.read_bytes())
        assert mode == 0o600, f"{path.name} was left with mode {mode:04o} when the server stopped"
        for kind, secret in kept.items():
            told = found.get(kind.value, {}).get("key")
            assert told == secret, f"{path.name} was left without the {kind.value} key when the server stopped"
    _check_siblings(path)


def _check_siblings(path: Path) -> None:
    left = sorted(each.name for each in path.parent.glob(f".{path.name}*"))
    assert not left, f"{', '.join(left)} was left beside {path.name}"
