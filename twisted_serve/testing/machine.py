# SPDX-License-Identifier: Apache-2.0
"""
Test a server's keys with a Hypothesis state machine: time, rotation, restarts, crashes and requests.

Run it unchanged, or with your own settings::

    class MyMachine(TokenMachine):
        options = {"token_expiration_min": 5, "token_refusal_status": 401}

    MyMachineTests = MyMachine.TestCase
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, role_of
from twisted_serve.testing.strategies.tokens import authorization_headers, token_kinds

__all__ = ["TokenMachine"]

# One guarded path for each kind of key, which succeeds without side effects.
_PROBE = {TokenKind.MANAGEMENT: "/models", TokenKind.INFERENCE: "/ping"}


class TokenMachine(RuleBasedStateMachine):
    """
    Only the live, unexpired key of the right kind grants access.

    :cvar options: Settings of the server, as for :class:`~twisted_serve.testing.server.MemoryServer`.
    """

    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.server = self.make_server()
        self.dead: list[str] = []
        self._ended: set[str] = set()
        self._record_created()

    def make_server(self) -> MemoryServer:
        """Return a new server; override it for one with your own dependencies, or behind another transport."""
        return MemoryServer(self.options)

    def teardown(self) -> None:
        """Stop the server and check that it leaves nothing behind."""
        self.server.server.stopService()
        assert not self.server.key_file.exists(), "the key file outlived the server"
        self.server.close()

    @property
    def lifetime(self) -> timedelta:
        """The lifetime of a key."""
        return timedelta(minutes=self.server.options.token_expiration_min)

    @rule(fraction=st.floats(0, 1.5))
    def wait(self, fraction: float) -> None:
        """Let time pass, up to one and a half lifetimes of a key."""
        before = self._live()
        self.server.advance(fraction * self.lifetime.total_seconds())
        self.bury(before)

    @rule(kind=st.sampled_from(list(_PROBE)), past=st.sampled_from([-1.0, -0.001, 0.0, 0.001, 1.0, 30.0]))
    def wait_for_expiry(self, kind: TokenKind, past: float) -> None:
        """Let time pass until just before or just after a key expires."""
        seconds = self._left(kind) + past
        if seconds > 0:
            before = self._live()
            self.server.advance(seconds)
            self.bury(before)

    @rule(fraction=st.sampled_from([-2.0, -0.5, -0.001, 0.5, 1.0]))
    def set_date(self, fraction: float) -> None:
        """Set the machine's date, by up to two lifetimes of a key, without time passing."""
        self.server.set_date(fraction * self.lifetime.total_seconds())

    @rule(kind=st.sampled_from([TokenKind.MANAGEMENT, TokenKind.INFERENCE]), method=st.sampled_from(["GET", "POST"]))
    def rotate(self, kind: TokenKind, method: str) -> None:
        """The API key replaces a key, and the response contains the new one."""
        before = self._live()
        answer = self.server.request(method, f"/token?type={kind.value}", self.server.key(TokenKind.API))
        assert answer.status == 200, answer
        assert answer.json["key"] == self.server.key(kind)
        assert self.server.key(kind) not in before
        self.bury(before)

    @rule(presented=token_kinds(), kind=st.sampled_from([TokenKind.MANAGEMENT, TokenKind.INFERENCE]))
    def rotate_without_right(self, presented: TokenKind, kind: TokenKind) -> None:
        """No other key can replace a key."""
        if presented is not TokenKind.API:
            before = self._live()
            answer = self.server.request("POST", f"/token?type={kind.value}", self.server.key(presented))
            assert answer.status == self._refused, answer
            assert self._live() == before

    @rule()
    def restart(self) -> None:
        """After a restart of the server, all keys are new."""
        before = self._live()
        self.server.restart()
        self.bury(before)
        assert not before & self._live()

    @rule()
    def crash(self) -> None:
        """After a crash, the server starts over its stale key file, and all keys are new."""
        before = self._live()
        self.server.crash()
        self.bury(before)
        assert not before & self._live()

    @rule(kind=st.sampled_from(list(_PROBE)), headers=authorization_headers())
    def guess(self, kind: TokenKind, headers: list[bytes]) -> None:
        """Every made-up credential is refused."""
        answer = self.server.request("GET", _PROBE[kind], headers={"Authorization": _sendable(headers)})
        assert answer.status == self._refused, answer

    @invariant()
    def right_keys_open_in_time(self) -> None:
        """A live key grants access to its own paths until its expiry date or for its lifetime, and never after."""
        for kind, path in _PROBE.items():
            if self._left(kind) <= 0:
                self._ended.add(self.server.key(kind))
            for presented in TokenKind:
                status = self._status(path, self.server.key(presented))
                expected = presented is kind and self.server.key(kind) not in self._ended
                assert status == (200 if expected else self._refused), (kind, presented, status)

    @invariant()
    def dead_keys_stay_dead(self) -> None:
        """A key that was replaced, or ended with its server, grants no access."""
        for secret in self.dead[-3:]:
            for path in _PROBE.values():
                assert self._status(path, secret) == self._refused, (secret, path)

    @invariant()
    def file_tells_the_live_keys(self) -> None:
        """The key file contains the live keys, and only its owner can read it."""
        read = json.loads(self.server.key_file.read_bytes())
        assert {kind.value: self.server.key(kind) for kind in TokenKind} == {
            kind: members["key"] for kind, members in read.items()
        }
        assert stat.S_IMODE(self.server.key_file.stat().st_mode) == 0o600

    def _status(self, path: str, key: str) -> int:
        role = role_of(path)
        return self.server.connect(role).get(self.server.path_of(path, role), f"Authorization: Bearer {key}")

    @property
    def _refused(self) -> int:
        return self.server.options.token_refusal_status

    def _left(self, kind: TokenKind) -> float:
        """Return the seconds until the live key of a kind ends, by its date or by its lifetime."""
        _secret, date, seconds = self.born[kind]
        by_date = (date + self.lifetime - self.server.now()).total_seconds()
        return min(by_date, seconds + self.lifetime.total_seconds() - self.server.clock.seconds())

    def _live(self) -> set[str]:
        return {token.secret for token in self.server.keys}

    def bury(self, before: set[str]) -> None:
        """Record which of the keys ``before`` are no longer live; for rules that may replace keys."""
        self.dead += sorted(before - self._live())
        self._record_created()

    def _record_created(self) -> None:
        """Record when each live key was created; a key that is already known keeps its date."""
        known: dict[TokenKind, tuple[str, datetime, float]] = getattr(self, "born", {})
        self.born = {}
        for kind in _PROBE:
            secret, old = self.server.key(kind), known.get(kind)
            fresh = (secret, self.server.now(), self.server.clock.seconds())
            self.born[kind] = old if old is not None and old[0] == secret else fresh


def _sendable(headers: list[bytes]) -> list[str]:
    """Reduce header values to the characters that a client can send."""
    texts = ["".join(c for c in header.decode("latin-1") if c.isprintable() and c.isascii()) for header in headers]
    return texts or [""]
