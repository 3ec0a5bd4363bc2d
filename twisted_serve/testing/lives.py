# SPDX-License-Identifier: Apache-2.0
"""
Compute when keys end, from the moment of their creation, and check the key file against that.

Nothing here asks the server when a key expires: a server that is wrong about it would be believed.

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from attrs import frozen

from twisted_serve.auth.key_file import instant
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer
from twisted_serve.testing.words import spell_duration

__all__ = ["Lives", "check_key_file", "check_nothing_left"]

_NOTHING = timedelta(0)


@frozen
class _Birth:
    """
    The creation of a key.

    :ivar date: By the server's date.
    :ivar seconds: By the clock that is never set.
    """

    secret: str
    date: datetime
    seconds: float


class Lives:
    """
    The lives of a server's keys.

    :ivar lifetime: The lifetime of a key.
    :ivar dead: The keys that are no longer live, oldest first: the kind of each, and how it ended.
    """

    def __init__(self, server: MemoryServer, kinds: Iterable[TokenKind]) -> None:
        self._server = server
        self._kinds = tuple(kinds)
        self._births: dict[TokenKind, _Birth] = {}
        self._ended: set[str] = set()
        self.lifetime = timedelta(minutes=server.options.token_expiration_min)
        self.dead: dict[str, tuple[TokenKind, str]] = {}
        self._kind_of: dict[str, TokenKind] = {}
        self._record()

    def expiry(self, kind: TokenKind) -> datetime:
        """Return the expiry date of the live key of a kind."""
        return self._births[kind].date + self.lifetime

    def left(self, kind: TokenKind) -> timedelta:
        """Return the time until the live key of a kind ends, by its date or by its lifetime; negative after its end."""
        return min(self._left_by_date(kind), self._left_of_lifetime(kind))

    def look(self) -> None:
        """Record which keys have ended: they stay so, even if the date is set back."""
        self._ended |= {self._births[kind].secret for kind in self._kinds if self.left(kind) <= _NOTHING}

    def ended(self, kind: TokenKind) -> bool:
        """Return whether the live key of a kind had ended at the last look."""
        return self._births[kind].secret in self._ended

    def how_long_ended(self, kind: TokenKind) -> str:
        """Return in words how long ago the live key of a kind ended."""
        by_date, of_lifetime = self._left_by_date(kind), self._left_of_lifetime(kind)
        if min(by_date, of_lifetime) > _NOTHING:
            return "although it had expired before the date was set back"
        if by_date <= of_lifetime:
            return f"{spell_duration(by_date)} after it had expired" if by_date else "at the instant of its expiry"
        # The date was set back meanwhile: it says something else.
        ago = f"{spell_duration(of_lifetime)} after" if of_lifetime else "at"
        return f"{ago} the end of its lifetime"

    def bury(self, before: Iterable[str], how: str) -> None:
        """Record which of the keys ``before`` are no longer live, and how they ended."""
        live = {token.secret for token in self._server.keys}
        for secret in sorted(set(before) - live):
            self.dead[secret] = self._kind_of[secret], how
        self._record()

    def _left_by_date(self, kind: TokenKind) -> timedelta:
        return self.expiry(kind) - self._server.now()

    def _left_of_lifetime(self, kind: TokenKind) -> timedelta:
        seconds = self._births[kind].seconds + self.lifetime.total_seconds() - self._server.clock.seconds()
        # The rest of a microsecond is left, too: a duration must not be rounded to nothing before the end.
        return timedelta(seconds=seconds) or (timedelta.resolution if seconds > 0 else _NOTHING)

    def _record(self) -> None:
        """Record when each live key was created; a key that is already known keeps its date."""
        self._kind_of.update({token.secret: token.kind for token in self._server.keys})
        for kind in self._kinds:
            secret = self._server.key(kind)
            if kind not in self._births or self._births[kind].secret != secret:
                self._births[kind] = _Birth(secret, self._server.now(), self._server.clock.seconds())


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


def check_nothing_left(path: Path) -> None:
    """
    Check that a server that has stopped has left no key file.

    :raise AssertionError: naming the file that is there.
    """
    assert not path.exists(), f"{path.name} was left behind when the server stopped"
    _check_siblings(path)


def _check_siblings(path: Path) -> None:
    left = sorted(each.name for each in path.parent.glob(f".{path.name}*"))
    assert not left, f"{', '.join(left)} was left beside {path.name}"
