# SPDX-License-Identifier: Apache-2.0
"""
Test a server's keys with a Hypothesis state machine: time, rotation, restarts, crashes, faults and requests.

Run it unchanged, or with your own settings::

    class MyMachine(TokenMachine):
        options = {"token_expiration_min": 5, "token_refusal_status": 401}

    MyMachineTests = MyMachine.TestCase

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.history import ServerMachine
from twisted_serve.testing.lives import Life, Lives, check_key_file, check_left
from twisted_serve.testing.strategies.files import DAMAGES, Damage
from twisted_serve.testing.strategies.tokens import AROUND, SPOILED, authorization_headers
from twisted_serve.testing.words import spell_duration

__all__ = ["TokenMachine"]

# One guarded path for each kind of key, which succeeds without side effects.
_PROBE = {TokenKind.MANAGEMENT: "/models", TokenKind.INFERENCE: "/ping"}

# How many of the keys that are no longer live are presented after each step.
_REMEMBERED = 4

# How long after the last event a key is replaced: at different times of keys' lives.
_PAUSES = (timedelta(seconds=1), timedelta(0), timedelta(minutes=1))

_GUARDED = st.sampled_from(list(_PROBE))

# Which clock ends a key: that of the date, the one that is never set, or both.
_CLOCKS = st.sampled_from(["both", "steady", "date"])


class TokenMachine(ServerMachine):
    """
    Only the live, unexpired key of the right kind grants access.

    :ivar lives: The keys that the machine knows, with their ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._presented_elsewhere: set[tuple[str, bool]] = set()
        self.lives = Lives(self.server, _PROBE)
        overlap = f", and replaced ones for {spell_duration(self.lives.overlap)} more" if self.lives.overlap else ""
        self._tell(f"the server starts; its keys live for {spell_duration(self.lives.lifetime)}{overlap}")

    def teardown(self) -> None:
        """Stop the server and check that it leaves nothing behind."""
        try:
            self._tell("the server stops")
            failed, live = sys.exc_info()[0] is not None, {kind: self.server.key(kind) for kind in TokenKind}
            self.server.server.stopService()
            # What an earlier failure leaves behind is not a failure of the stop, and must not be told in its place.
            if not failed:
                check_left(self.server.key_file, live if self.lives.keeps else None)
        finally:
            self.server.close()

    @rule(fraction=st.floats(0, 1.5))
    def wait(self, fraction: float) -> None:
        """Let time pass, up to one and a half lifetimes of a key."""
        self._pass(round(fraction * self.lives.lifetime.total_seconds(), 6))

    @rule(kind=_GUARDED, past=st.sampled_from(AROUND))
    def wait_for_expiry(self, kind: TokenKind, past: timedelta) -> None:
        """Let time pass until just before, at, or just after the end of a key."""
        self._renew(kind)
        self._pass_to(self.lives.of(kind), past)

    @rule(kind=_GUARDED, clock=_CLOCKS)
    def watch_expiry(self, kind: TokenKind, clock: str) -> None:
        """
        Go step by step around the end of a key, and look each time.

        :param clock: Which clock ends the key: ``"date"``, ``"steady"``: the one that is never set, or ``"both"``.
        """
        self._renew(kind)
        self._go_around(self.lives.of(kind), clock)

    @precondition(lambda self: self.lives.overlap)
    @rule(kind=_GUARDED, clock=_CLOCKS)
    def watch_overlap(self, kind: TokenKind, clock: str) -> None:
        """Go step by step around the end of the overlap of a replaced key, and look each time."""
        self._renew(kind)
        self.rotate(kind, "POST")
        self._go_around(self.lives.former(kind)[-1], clock)

    @rule(fraction=st.sampled_from([-2.0, -0.5, -0.001, 0.5, 1.0]))
    def set_date(self, fraction: float) -> None:
        """Set the machine's date, by up to two lifetimes of a key, without time passing."""
        self._set_date(fraction * self.lives.lifetime)

    @rule(kind=_GUARDED, past=st.sampled_from(AROUND))
    def set_date_to_expiry(self, kind: TokenKind, past: timedelta) -> None:
        """Set the machine's date to just before, at, or just after the expiry date of a key."""
        self._renew(kind)
        self._set_date(self.lives.of(kind).expiry + past - self.server.now())

    @rule(kind=_GUARDED, method=st.sampled_from(["GET", "POST"]), after=st.sampled_from(_PAUSES))
    def rotate(self, kind: TokenKind, method: str, after: timedelta = timedelta(0)) -> None:
        """The API key replaces a key, and the response contains the new one."""
        self._pass(after.total_seconds())
        self._tell(f"the API key replaces the {kind.value} key")
        before = self._live()
        answer = self.server.request(method, f"/token?type={kind.value}", self.server.key(TokenKind.API))
        asked = f"{method} /token?type={kind.value} at {self._time()}"
        assert answer.status == 200, f"{asked} with the API key was answered with {answer.status}: {answer.body!r}"
        assert self.server.key(kind) not in before, f"{asked} did not replace the {kind.value} key"
        assert answer.json["key"] == self.server.key(kind), f"{asked} did not return the new {kind.value} key"
        self.bury(before, "had been replaced")

    @precondition(lambda self: self.lives.overlap)
    @rule(kind=_GUARDED, times=st.integers(2, 6))
    def rotate_often(self, kind: TokenKind, times: int) -> None:
        """A key is replaced so often that not all replaced ones are accepted."""
        for _ in range(times):
            self.rotate(kind, "POST")
            self.right_keys_open_in_time()

    @rule(kind=_GUARDED)
    def rotate_in_vain(self, kind: TokenKind) -> None:
        """A key that cannot be written to the key file does not replace one."""
        directory = self.server.directory
        if directory not in self.server.key_file.parents:
            return
        self._tell(f"the directory of the key file is away while the API key replaces the {kind.value} key")
        before, aside = self._live(), directory.with_name(f"{directory.name}-aside")
        directory.rename(aside)
        try:
            status = self._status("POST", f"/token?type={kind.value}", f"Bearer {self.server.key(TokenKind.API)}")
        finally:
            aside.rename(directory)
        asked = f"POST /token?type={kind.value} at {self._time()}, when no file could be written,"
        assert status == 500, f"{asked} was answered with {status}"
        assert self._live() == before, f"{asked} changed the live keys"

    @rule(kind=_GUARDED)
    def rotate_without_right(self, kind: TokenKind) -> None:
        """No other key can replace a key."""
        before = self._live()
        for presented in _PROBE:
            self._tell(f"the {presented.value} key tries to replace the {kind.value} key")
            headers = [f"Bearer {self.server.key(presented)}"]
            self._refuse("POST", f"/token?type={kind.value}", headers, f"the {presented.value} key")
            assert self._live() == before, f"the {presented.value} key replaced a key at {self._time()}"

    @rule()
    def restart(self) -> None:
        """After a restart of the server, all keys are new, or go on with ``token_on_restart=keep``."""
        self._tell("the server stops and starts again")
        with self._another_server():
            self.server.restart()

    @rule()
    def crash(self) -> None:
        """After a crash, the server starts over its stale key file: as after a restart."""
        self._tell("the server crashes and starts again")
        with self._another_server():
            self.server.crash()

    @rule(damage=st.sampled_from(DAMAGES))
    def crash_with_damage(self, damage: Damage) -> None:
        """After a crash that damages the key file, all keys are new: a damaged file is not believed."""
        self._tell(f"the server crashes and starts again over a key file that {damage.words}")
        with self._another_server(believed=False):
            self.server.crash(damage.do)

    @rule(kind=_GUARDED, headers=authorization_headers())
    def guess(self, kind: TokenKind, headers: list[bytes]) -> None:
        """Every made-up credential is refused; a valid key opens alone, whole and unchanged, or not at all."""
        self._tell(f"a client presents {headers}, and the {kind.value} key in wrong ways")
        self._refuse("GET", _PROBE[kind], _sendable(headers), f"the made-up {headers}")
        for way in SPOILED:
            spoiled, words = way.headers(self.server.key(kind)), f"the {kind.value} key, presented as {way.words},"
            self._refuse("GET", _PROBE[kind], spoiled, words)

    @invariant()
    def right_keys_open_in_time(self) -> None:
        """A live key grants access to its own paths until its expiry date or for its lifetime, and never after."""
        self.lives.look()
        for life in self.lives:
            path, headers = _PROBE[life.kind], [f"Bearer {life.secret}"]
            words = f"{'a replaced' if life.replaced else 'the'} {life.kind.value} key"
            if self.lives.ended(life):
                self._refuse("GET", path, headers, words, f", {self.lives.how_long_ended(life)}")
            elif not self.lives.undecided(life):
                status, left = self._status("GET", path, *headers), spell_duration(self.lives.left(life))
                end = "the end of its overlap" if life.replaced else "its expiry"
                asked = f"GET {path} at {self._time()}, {left} before {end}"
                assert status == 200, f"{words} did not open {asked}: {status}"

    @invariant()
    def keys_open_their_own_paths(self) -> None:
        """A key grants no access to paths that need another kind, once for each set of live keys and of ended ones."""
        state = {(self.server.key(kind), self.lives.has_ended(kind)) for kind in TokenKind}
        if state != self._presented_elsewhere:
            self._presented_elsewhere = state
            for kind, path in _PROBE.items():
                for presented in set(TokenKind) - {kind}:
                    headers = [f"Bearer {self.server.key(presented)}"]
                    self._refuse(
                        "GET", path, headers, f"the {presented.value} key", f", which needs the {kind.value} key"
                    )

    @invariant()
    def dead_keys_stay_dead(self) -> None:
        """A key that was replaced, or ended with its server, grants no access."""
        dead = [(secret, kind, how) for secret, (kind, how) in self.lives.dead.items() if kind in _PROBE]
        for secret, kind, how in dead[-_REMEMBERED:]:
            self._refuse("GET", _PROBE[kind], [f"Bearer {secret}"], f"a former {kind.value} key", f", which {how}")

    @invariant()
    def file_tells_the_live_keys(self) -> None:
        """The key file contains the live keys and their expiry dates, and only its owner can read it."""
        check_key_file(self.server, {kind: self.lives.of(kind).expiry for kind in _PROBE})

    def bury(self, before: set[str], how: str = "had ended") -> None:
        """Record which of the keys ``before`` are no longer live; for rules that may replace keys."""
        self.lives.bury(before, how)

    def _renew(self, kind: TokenKind) -> None:
        """Replace a key that has ended: only the end of a key that opens is of interest."""
        if self.lives.has_ended(kind):
            self.rotate(kind, "POST")

    def _go_around(self, life: Life, clock: str) -> None:
        if clock == "steady":
            self._set_date(-self.lives.lifetime)
        # One step after the other: a periodic check that sees the end first would hide a late one.
        for past in sorted(AROUND):
            if clock == "date":
                self._set_date(life.expiry + past - self.server.now())
            else:
                self._pass_to(life, past)
            self.right_keys_open_in_time()

    def _pass_to(self, life: Life, past: timedelta) -> None:
        """Let time pass until a moment around the end of a key, unless that is over."""
        self._pass(max(timedelta(0), self.lives.left(life) + past).total_seconds())

    def _pass(self, seconds: float) -> None:
        if not seconds:
            return
        # To a whole microsecond, as dates are: floats would miss an instant by less than that.
        end = round(self.server.clock.seconds() + seconds, 6)
        # Step by step if the server itself replaces keys: each of them is watched.
        while (stop := self.lives.next_stop()) < end:
            self._pass_until(stop)
        self._pass_until(end)
        self._tell(f"{spell_duration(timedelta(seconds=seconds))} have passed")

    def _pass_until(self, seconds: float) -> None:
        before, due = self._live(), self.lives.due()
        self.server.advance(seconds - self.server.clock.seconds())
        # Keys are replaced meanwhile with ``token_auto_rotate``.
        self.bury(before, "had been replaced")
        self.lives.check_replacements(due)

    def _set_date(self, by: timedelta) -> None:
        was = self._time()
        self.server.set_date(by.total_seconds())
        self._tell(f"the date has been set {'back' if by < timedelta(0) else 'forward'}; it was {was}")

    @contextmanager
    def _another_server(self, believed: bool = True) -> Iterator[None]:
        """
        Compare the keys before and after a block that starts another server.

        :param believed: Whether the server may go on with the keys that it finds in the file, if it keeps keys.
        """
        before = self._live()
        yield
        self.lives.begin_again(before, self.lives.keeps and believed)

    def _refuse(self, method: str, path: str, headers: Sequence[str], words: str, why: str = "") -> None:
        status = self._status(method, path, *headers)
        asked = f"{method} {path} at {self._time()}{why}"
        assert status != 200, f"{words} opened {asked}"
        refused = self.server.options.token_refusal_status
        assert status == refused, f"{words} was answered with {status}, not {refused}, by {asked}"

    def _live(self) -> set[str]:
        return {token.secret for token in self.server.keys}


def _sendable(headers: list[bytes]) -> list[str]:
    """Reduce header values to the characters that a client can send."""
    texts = ["".join(c for c in header.decode("latin-1") if c.isprintable() and c.isascii()) for header in headers]
    return texts or [""]
