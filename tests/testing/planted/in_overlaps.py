# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in the overlap of a replaced key with its successor, and in replacements by the server itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.testing.planted.bug import Concern, Planted, replacing
from twisted_serve.assembly import server
from twisted_serve.auth import keyring
from twisted_serve.auth.expiry import ExpiryChecker
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.live import LiveToken
from twisted_serve.auth.tokens import KeySet, Token

OVERLAP = {"token_overlap_sec": 90}
AUTOMATIC = {"token_auto_rotate": True, "token_expiration_min": 5}

_FORMER = r"^a replaced (management|inference) key "
_ASKED = r"GET /(models|ping) at [-\d:. ]+, "

_retire = Keyring._retire
_until = LiveToken.until
_begin = Keyring.__init__
_check = ExpiryChecker._check


def _longer(more: timedelta) -> Callable[[], AbstractContextManager[None]]:
    """Let overlaps last for too long."""

    def until(self: LiveToken, date: datetime, deadline: float) -> LiveToken:
        return _until(self, date + more, deadline + more.total_seconds())

    return replacing(LiveToken, until=until)


def _none(self: Keyring, old: Token, now: datetime) -> None:
    """End the replaced key at once."""


def _renewed(self: LiveToken, date: datetime, deadline: float) -> LiveToken:
    """Let a replaced key live for the overlap, even if it expires sooner."""
    return _until(LiveToken(self.token, deadline), datetime.max.replace(tzinfo=date.tzinfo), deadline)


def _by_date(self: LiveToken, date: datetime, deadline: float) -> LiveToken:
    """End the overlap by the date alone."""
    return _until(self, date, float("inf"))


@contextmanager
def _overlaps_kept() -> Iterator[None]:
    """Remember replaced keys across restarts."""
    runs: dict[Path, Keyring] = {}

    def begin(self: Keyring, keys: KeySet, save: Any, *others: Any, **more: Any) -> None:
        _begin(self, keys, save, *others, **more)
        earlier = runs.get(save.__self__.path)
        if earlier is not None:
            self._former = earlier._former
            self._use(self._keys, self._live)
        runs[save.__self__.path] = self

    with replacing(Keyring, __init__=begin)():
        yield


def _sees_no_end(self: ExpiryChecker) -> None:
    """Look at the keys once a minute at most."""
    if self._clock.seconds() % 60 < 1:
        _check(self)


def _too_early(overlap: timedelta, lifetime: timedelta) -> timedelta:
    """Replace keys when a third of their life is over."""
    return lifetime * 2 / 3


BUGS = (
    Planted(
        "overlap a microsecond too long",
        Concern.OVERLAP,
        _FORMER + "opened " + _ASKED + "(at the end of its overlap|1 µs after )",
        _longer(timedelta(microseconds=1)),
        OVERLAP,
    ),
    Planted(
        "overlap a second too long",
        Concern.OVERLAP,
        _FORMER + "opened " + _ASKED + r"(at the end of its overlap|[\w µ]+ after its overlap was over)$",
        _longer(timedelta(seconds=1)),
        OVERLAP,
    ),
    Planted(
        "overlap a microsecond too short",
        Concern.OVERLAP,
        _FORMER + "did not open " + _ASKED + "1 µs before the end of its overlap: 400$",
        _longer(timedelta(microseconds=-1)),
        OVERLAP,
    ),
    Planted(
        "overlap ignored",
        Concern.OVERLAP,
        _FORMER + "did not open " + _ASKED + "[ 0-9a-zµ]+ before the end of its overlap: 400$",
        replacing(Keyring, _retire=_none),
        OVERLAP,
    ),
    Planted(
        "overlap in place of the expiry",
        Concern.OVERLAP,
        _FORMER + "opened ",
        replacing(LiveToken, until=_renewed),
        OVERLAP,
    ),
    Planted(
        "overlap ends with the date alone",
        Concern.OVERLAP,
        _FORMER + "opened " + _ASKED,
        replacing(LiveToken, until=_by_date),
        OVERLAP,
    ),
    Planted(
        "overlap survives a restart",
        Concern.OVERLAP | Concern.RESTART,
        r"^a former (management|inference) key opened .*, which had ended with the last run of the server$",
        _overlaps_kept,
        OVERLAP,
    ),
    Planted(
        "one replaced key more than documented",
        Concern.OVERLAP,
        r"^a former (management|inference) key opened .*, which had been replaced, and 4 others after it$",
        replacing(keyring, MOST_FORMER=5),
        OVERLAP,
    ),
    Planted(
        "one replaced key less than documented",
        Concern.OVERLAP,
        _FORMER + "did not open ",
        replacing(keyring, MOST_FORMER=3),
        OVERLAP,
    ),
    Planted(
        "automatic replacement within a minute",
        Concern.ROTATION,
        r"^token_auto_rotate did not replace the (management|inference) key in 1 s 1 µs$",
        replacing(ExpiryChecker, _check=_sees_no_end),
        AUTOMATIC,
    ),
    Planted(
        "automatic replacement long before the end",
        Concern.ROTATION,
        r"^token_auto_rotate replaced the (management|inference) key [ 0-9a-zµ]+ early$",
        replacing(server, replaced_ahead=_too_early),
        AUTOMATIC | OVERLAP,
    ),
    Planted(
        "automatic replacement without an overlap",
        Concern.OVERLAP,
        r"^token_auto_rotate did not replace the (management|inference) key in 1 s 1 µs$",
        replacing(server, replaced_ahead=lambda overlap, lifetime: timedelta(0)),
        AUTOMATIC | OVERLAP,
    ),
)
