# SPDX-License-Identifier: Apache-2.0
"""
Test a server's named keys with a Hypothesis state machine: scopes, expiry, limits, revocation, several servers.

Run it unchanged, or with your own settings::

    class MyKeys(NamedKeyMachine):
        options = {"token_overlap_sec": 600, "token_refusal_status": 401}

    MyKeysTests = MyKeys.TestCase

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from twisted_serve.testing.exchange import OpenRequest
from twisted_serve.testing.key_store import change_elsewhere, check_listing, check_store, revoke_elsewhere
from twisted_serve.testing.named_checks import KeysMachine
from twisted_serve.testing.named_keys import CALLS, SCOPES, SLOW, Call, Key, Verdict
from twisted_serve.testing.strategies.tokens import AROUND, SPOILED, Spoiled
from twisted_serve.testing.words import spell_duration

__all__ = ["NamedKeyMachine"]

_NAMES = st.sampled_from(["ada", "bob"])
_SCOPES = st.lists(st.sampled_from(SCOPES), min_size=1, max_size=3, unique=True).map(tuple)
_SECONDS = st.none() | st.sampled_from([1.0, 60.0, 3600.0])
_RATES = st.none() | st.sampled_from([1, 2, 7])
_CONCURRENT = st.none() | st.sampled_from([1, 2])
_CALLS = st.sampled_from(CALLS)

#: What a change of a key changes.
_CHANGES = st.one_of(
    st.fixed_dictionaries({"disabled": st.booleans()}),
    st.fixed_dictionaries({"scopes": _SCOPES}),
    st.fixed_dictionaries({"expires_in_sec": st.sampled_from([1.0, 60.0, 3600.0])}),
    st.just({"expires": None}),
    st.fixed_dictionaries({"rate": _RATES}),
    st.fixed_dictionaries({"concurrent": _CONCURRENT}),
)

_PING = CALLS[0]
_SLOW = Call("GET", f"/predictions/{SLOW}", "inference", model=SLOW)

# Of each pair the second one does not exist.
_PAIRS = (
    ("GET /predictions/{}", "beta", "gamma"),
    ("GET /models/{}", "alpha", "gamma"),
    ("DELETE /keys/{}", "ada", "nobody"),
)

# How many of the secrets that are no longer good are presented after each step.
_REMEMBERED = 4

# In seconds: another server's change counts after so many.
_NOTICED = 1.000001


class NamedKeyMachine(KeysMachine):
    """
    A named key opens what its scopes allow, while it is good, as often as its limits allow; nothing else does.
    """

    options = {"token_overlap_sec": 30}

    @initialize(scopes=_SCOPES, rate=_RATES, concurrent=_CONCURRENT)
    def first_keys(self, scopes: tuple[str, ...], rate: int | None, concurrent: int | None) -> None:
        """There are keys from the beginning."""
        self.create("ada", scopes, None, rate, concurrent)
        self.create("bob", ("inference",), None, None, None)

    @rule(name=_NAMES, scopes=_SCOPES, seconds=_SECONDS, rate=_RATES, concurrent=_CONCURRENT)
    def create(
        self, name: str, scopes: tuple[str, ...], seconds: float | None, rate: int | None, concurrent: int | None
    ) -> None:
        """The API key makes a key, unless there is one of this name."""
        given: dict[str, Any] = {"name": name, "scopes": scopes, "rate": rate, "concurrent": concurrent}
        if seconds is not None:
            given["expires_in_sec"] = seconds
        limits = [f"{rate} requests a minute"] * (rate is not None) + [f"{concurrent} at once"] * bool(concurrent)
        lives = [] if seconds is None else [f"for {spell_duration(timedelta(seconds=seconds))}"]
        self._tell(f"the key {name} is made, with {', '.join([*scopes, *limits, *lives])}")
        answer = self._manage("POST", "/keys", 409 if name in self.keys else 201, given)
        if name not in self.keys:
            expires = None if seconds is None else self.server.now() + timedelta(seconds=seconds)
            key = Key(name, answer.json["key"], scopes, expires, False, rate, concurrent)
            key.begin_again(self._nanoseconds())
            self.keys[name] = key

    @rule(name=_NAMES, change=_CHANGES)
    def change(self, name: str, change: Mapping[str, Any]) -> None:
        """The API key changes a key."""
        self._tell(f"the key {name} is changed: {', '.join(f'{field} is {value}' for field, value in change.items())}")
        key = self.keys.get(name)
        self._manage("PATCH", f"/keys/{name}", 404 if key is None else 200, change)
        if key is not None:
            self._changed(key, change)

    @rule(name=_NAMES)
    def revoke(self, name: str) -> None:
        """The API key revokes a key."""
        self._tell(f"the key {name} is revoked")
        self._manage("DELETE", f"/keys/{name}", 200 if name in self.keys else 404)
        self._revoked(name)

    @rule(name=_NAMES)
    def rotate_twice(self, name: str) -> None:
        """A key is rotated again within the overlap: only the last secret before is good."""
        self.rotate(name)
        self.rotate(name)

    @rule(name=_NAMES)
    def rotate(self, name: str) -> None:
        """The API key gives a key another secret; the one before is good for the overlap."""
        self._tell(f"the key {name} is rotated")
        key = self.keys.get(name)
        answer = self._manage("POST", f"/keys/{name}/rotate", 404 if key is None else 200)
        if key is None:
            return
        overlap = timedelta(seconds=self.server.options.token_overlap_sec)
        if key.former is not None:
            self.dead[key.former[0]] = name, "it was replaced twice"
        if overlap:
            key.former = key.secret, self.server.now() + overlap
        else:
            self.dead[key.secret] = name, "it was replaced"
        key.secret, key.former_ended = answer.json["key"], False

    @rule(name=_NAMES, former=st.booleans(), call=_CALLS)
    def request(self, name: str, former: bool, call: Call) -> None:
        """A client asks for something with a key, or with the secret that it had before."""
        key = self._key(name)
        self._request(key, key.secrets[-1] if former else key.secret, call)

    @rule(name=_NAMES, scopes=_SCOPES)
    def request_everything(self, name: str, scopes: tuple[str, ...]) -> None:
        """The scopes of a key are changed, and a client tries everything with it."""
        key = self._key(name)
        self.change(name, {"scopes": scopes, "rate": None, "concurrent": None})
        for call in CALLS:
            self._request(key, key.secret, call)

    @rule(name=_NAMES, more=st.integers(1, 3))
    def flood(self, name: str, more: int) -> None:
        """A client sends more requests than it may, waits as it is told, and sends one more."""
        key = self._key(name)
        if key.rate is None or not key.allows(_PING):
            self.change(name, {"rate": more, "scopes": ("inference",)})
        for _ in range((key.rate or 0) + more):
            answer = self._request(key, key.secret, _PING)
        wait = answer.headers.get("retry-after")
        if answer.status == 429 and wait is not None:
            for _ in range(3):
                self._request(key, key.secret, _PING)
            for seconds in (0.5 * float(wait), 0.5 * float(wait)):
                self.wait(seconds)
                self._request(key, key.secret, _PING)

    @rule(name=_NAMES)
    def hold(self, name: str) -> None:
        """A client sends a request that takes time."""
        key = self._key(name)
        if not key.allows(_SLOW) or key.concurrent is None:
            self.change(name, {"scopes": ("inference:*",), "concurrent": 1})
        verdict = self._verdict(key, key.secret, _SLOW)
        sent = OpenRequest(self.server, _SLOW.method, _SLOW.path, [f"Bearer {key.secret}"], None)
        if verdict.why:
            self._check(sent.answer, verdict, f"the key {name}", _SLOW)
            sent.leave()
        else:
            self._tell(f"a request with the key {name} begins")
            if sent.answer is not None:
                self._check(sent.answer, verdict, f"the key {name}", _SLOW)
            key.in_flight += 1
            self._held.append((key, sent))

    @rule(disconnected=st.booleans())
    def end(self, disconnected: bool) -> None:
        """The oldest request that takes time ends: with its answer, or because its client disconnects."""
        if not self._held:
            return
        key, sent = self._held.pop(0)
        self._tell(f"the request with the key {key.name} {'is given up' if disconnected else 'is answered'}")
        if not disconnected:
            # The worker may still have requests whose clients are gone.
            for _ in range(8):
                if sent.answer is None:
                    self._slow_worker().answer()
            answer = sent.answer
            status = None if answer is None else answer.status
            assert status == 200, f"the request with the key {key.name} was not answered at {self._time()}: {status}"
        sent.leave()
        key.in_flight -= 1

    @rule(name=_NAMES)
    def give_up(self, name: str) -> None:
        """A client disconnects before it is answered: another request takes its place."""
        while self._held:
            self.end(disconnected=True)
        self.hold(name)
        self.end(disconnected=True)
        self.hold(name)

    @rule(name=_NAMES, way=st.sampled_from(SPOILED))
    def spoil(self, name: str, way: Spoiled) -> None:
        """A key opens alone, whole and unchanged, or not at all."""
        words, verdict = f"the key {name}, presented as {way.words},", Verdict(self._refused, "it is spoiled")
        self._check(self._ask(_PING, way.headers(self._key(name).secret)), verdict, words, _PING)

    @rule(name=_NAMES, pair=st.sampled_from(_PAIRS))
    def compare(self, name: str, pair: tuple[str, str, str]) -> None:
        """A key without the scope is refused in the same words, whether there is such a thing or not."""
        key = self._key(name)
        template, there, missing = pair
        method, path = template.split(" ")
        calls = [Call(method, path.format(each), _scope_of(path), model=each) for each in (there, missing)]
        if any(key.allows(call) for call in calls):
            self.change(name, {"scopes": ("console", "inference:alpha*")})
        if key.problem(key.secret, self.server.now()) or any(key.allows(call) for call in calls):
            return
        first, second = [self._ask(call, [f"Bearer {key.secret}"]) for call in calls]
        for answer, call in zip((first, second), calls, strict=True):
            self._check(answer, Verdict(403, "its scopes do not allow it"), f"the key {name}", call)
        assert first.body == second.body, f"the refusals of {calls[0]} and {calls[1]} differ for the key {name}"

    @rule(seconds=st.sampled_from([0.5, 1.0, 7.3, 30.0, 60.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.server.advance(seconds)
        self._tell(f"{spell_duration(timedelta(seconds=seconds))} have passed")

    @rule(seconds=st.sampled_from([-4000.0, -61.0, -1.0, 1.0, 61.0, 4000.0]))
    def set_date(self, seconds: float) -> None:
        """The date is set; no time passes."""
        self.server.set_date(seconds)
        self._tell(f"the date has been set {'back' if seconds < 0 else 'forward'}")

    @rule(name=_NAMES, former=st.booleans(), back=st.booleans())
    def watch_end(self, name: str, former: bool, back: bool) -> None:
        """
        Go step by step around the end of a key, or of an overlap, and look each time.

        :param back: Whether the date is set back in the end.
        """
        key = self._key(name)
        if former and key.former is None:
            self.rotate(name)
        elif not former and key.expires is None:
            self.change(name, {"expires_in_sec": 60.0, "disabled": False})
        end = key.former[1] if former and key.former is not None else key.expires
        if end is None or key.disabled:
            return
        for past in sorted(AROUND):
            self.server.set_date((end + past - self.server.now()).total_seconds())
            self._tell(f"the date is {'about' if past else 'exactly'} the end of the key {name}")
            self.good_keys_open()
            self.others_do_not()
        if back:
            self.set_date(-61.0)

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        """The server starts again, with the same keys."""
        self._tell(f"the server {'crashes' if crash else 'stops'} and starts again")
        self._disconnect_all()
        if crash:
            self.server.crash()
        else:
            self.server.restart()
        self._hold_back()
        for key in self.keys.values():
            key.begin_again(self._nanoseconds())

    @rule(name=_NAMES, change=st.sampled_from(["disable", "enable", "revoke"]), waits=st.booleans())
    def another_server(self, name: str, change: str, waits: bool) -> None:
        """
        Another server, which shares the file, changes a key: it counts a second later, or with a change here.

        :param waits: Whether time passes; or else this server changes a key meanwhile.
        """
        key = self._key(name)
        self._tell(f"another server wants to {change} the key {name}")
        if change == "revoke":
            revoke_elsewhere(self.store, name)
            self._revoked(name)
        else:
            change_elsewhere(self.store, name, disabled=change == "disable")
            key.disabled = change == "disable"
        if waits:
            self.wait(_NOTICED)
        else:
            self.change("bob" if name == "ada" else "ada", {"disabled": False})
            if ("bob" if name == "ada" else "ada") not in self.keys:
                self.wait(_NOTICED)

    @invariant()
    def good_keys_open(self) -> None:
        """A key that is good opens what its scopes allow, and is refused the rest."""
        for key in self.keys.values():
            for secret in key.secrets:
                # A request of a limited key would change what it may do next.
                if key.rate is None or key.problem(secret, self.server.now()):
                    self._request(key, secret, _PING)

    @invariant()
    def others_do_not(self) -> None:
        """A secret that was revoked or replaced opens nothing."""
        for secret, (name, why) in list(self.dead.items())[-_REMEMBERED:]:
            self._check(
                self._ask(_PING, [f"Bearer {secret}"]), Verdict(self._refused, why), f"a former key {name}", _PING
            )

    @invariant()
    def files_tell_the_keys(self) -> None:
        """The file has the keys and no secret, and the list of the server tells the same."""
        check_store(self.store, self.keys.values())
        answer = self._manage("GET", "/keys", 200)
        assert b"tsk_" not in answer.body, "GET /keys tells a secret"
        check_listing(answer.json["keys"], self.keys.values(), "GET /keys")
        assert "tsk_" not in self.server.key_file.read_text(), (
            f"{self.server.key_file.name} has the secret of a named key"
        )

    @invariant()
    def logs_have_no_secret(self) -> None:
        """No log line has a secret."""
        lines, self._log.lines = self._log.lines, []
        for line in lines:
            assert not any(secret in line for secret in self._secrets()), f"a log line has the secret of a key: {line}"

    def _key(self, name: str) -> Key:
        """Return the key of a name, which is made unless there is one."""
        if name not in self.keys:
            self.create(name, ("inference",), None, None, None)
        return self.keys[name]

    def _disconnect_all(self) -> None:
        while self._held:
            self.end(disconnected=True)


def _scope_of(path: str) -> str:
    """Return the scope that a path needs."""
    first = path.split("/")[1]
    return {"predictions": "inference", "models": "models:read", "keys": "tokens"}[first]
