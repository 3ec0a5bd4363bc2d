# SPDX-License-Identifier: Apache-2.0
"""
Ask a server with named keys for something, and compare each response with what a plain model of the keys says.

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from zope.interface import implementer

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.answers import Answer
from twisted_serve.testing.exchange import OpenRequest, ask
from twisted_serve.testing.history import ServerMachine
from twisted_serve.testing.named_keys import MODELS, SLOW, Call, Key, Verdict
from twisted_serve.testing.server import MemoryServer

__all__ = ["KeysMachine"]


@implementer(ILogObserver)
class _Log:
    """
    Collects what may be a secret in the log.

    :ivar lines: The lines with one: a key may be logged before the client has it.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        text = eventAsText(event)
        if "tsk_" in text:
            self.lines.append(text)


class KeysMachine(ServerMachine):
    """
    A state machine over a server with a file of named keys; the rules are those of a subclass.

    :ivar store: The file of the named keys (``token_store``).
    :ivar keys: The keys that must exist, by name.
    :ivar dead: The secrets that are no longer good: the key of each, and why.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="twisted_serve-keys-"))
        self.store = self._directory / "keys.json"
        self.keys: dict[str, Key] = {}
        self.dead: dict[str, tuple[str, str]] = {}
        self._held: list[tuple[Key, OpenRequest]] = []
        self._log = _Log()
        globalLogPublisher.addObserver(self._log)
        super().__init__()
        self._hold_back()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the server, the file of named keys included; for `make_server`."""
        # No answer that is held comes too late.
        return {"token_store": self.store, "default_response_timeout": 10**6, **self.options}

    def make_server(self) -> MemoryServer:
        """Return a new server with `settings` and the models of the calls; override it as for `TokenMachine`."""
        return MemoryServer(self.settings, models={name: {} for name in MODELS})

    def teardown(self) -> None:
        """Stop the server, and remove its files."""
        try:
            for _key, sent in self._held:
                sent.leave()
            self.server.close()
        finally:
            globalLogPublisher.removeObserver(self._log)
            shutil.rmtree(self._directory, ignore_errors=True)

    def _request(self, key: Key, secret: str, call: Call) -> Answer:
        """Ask for something with one of the secrets of a key, and check the response."""
        verdict = self._verdict(key, secret, call)
        answer = self._ask(call, [f"Bearer {secret}"])
        words = f"the key {key.name}" if secret == key.secret else f"the replaced key {key.name}"
        self._check(answer, verdict, words, call)
        return answer

    def _verdict(self, key: Key, secret: str, call: Call) -> Verdict:
        """Return the response that a request must get, and count it."""
        problem = key.problem(secret, self.server.now())
        if problem:
            return Verdict(self._refused, problem)
        if not key.allows(call):
            return Verdict(403, f"its scopes are {', '.join(key.scopes)}")
        return key.limited(self._nanoseconds()) or Verdict(call.status)

    def _check(self, answer: Answer | None, verdict: Verdict, words: str, call: Call) -> None:
        asked = f"{call} at {self._time()}"
        assert answer is not None, f"{words} waits for {asked}, although {verdict.why}"
        status = answer.status
        why = f", although {verdict.why}" if verdict.why else ""
        assert status in (self._refused, 403, 429) or not verdict.why, f"{words} opened {asked}{why}"
        assert status not in (self._refused, 403, 429) or verdict.why, f"{words} did not open {asked}: {status}"
        assert status == verdict.status, f"{words} was answered with {status}, not {verdict.status}, by {asked}{why}"
        if verdict.retry_after is not None:
            told = answer.headers.get("retry-after")
            assert told == str(verdict.retry_after), (
                f"{words} was told to try {call} again after {told} s, not {verdict.retry_after} s{why}"
            )

    def _manage(self, method: str, path: str, expected: int, body: Mapping[str, Any] | None = None) -> Answer:
        """Manage keys with the API key."""
        answer = ask(self.server, method, path, [f"Bearer {self.server.key(TokenKind.API)}"], body)
        asked = f"{method} {path} at {self._time()}"
        assert answer.status == expected, f"{asked} was answered with {answer.status}, not {expected}: {answer.body!r}"
        return answer

    def _ask(self, call: Call, authorization: list[str]) -> Answer:
        return ask(self.server, call.method, call.path, authorization)

    def _changed(self, key: Key, change: Mapping[str, Any]) -> None:
        key.scopes = change.get("scopes", key.scopes)
        key.disabled = change.get("disabled", key.disabled)
        if "expires_in_sec" in change:
            key.expires = self.server.now() + timedelta(seconds=change["expires_in_sec"])
        elif "expires" in change:
            key.expires = None
        key.limit(self._nanoseconds(), change.get("rate", key.rate), change.get("concurrent", key.concurrent))

    def _revoked(self, name: str) -> None:
        key = self.keys.pop(name, None)
        if key is not None:
            self.dead |= dict.fromkeys(key.secrets, (name, "it was revoked"))

    def _hold_back(self) -> None:
        """Let the worker of the slow model answer when it is told to."""
        self._slow_worker().holding = True

    def _slow_worker(self) -> Any:
        return next(worker for worker in self.server.provider.alive if worker.spec.load.model_name == SLOW)

    def _secrets(self) -> list[str]:
        return [*self.dead, *(secret for key in self.keys.values() for secret in key.secrets)]

    def _nanoseconds(self) -> int:
        return int(self.server.clock.seconds() * 10**9)

    @property
    def _refused(self) -> int:
        return self.server.options.token_refusal_status
