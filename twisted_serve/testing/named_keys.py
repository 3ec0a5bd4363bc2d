# SPDX-License-Identifier: Apache-2.0
"""
State as plain values what a named key may do: a second opinion, which shares no code with the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from attrs import field, frozen, mutable

__all__ = ["CALLS", "MODELS", "SCOPES", "SLOW", "Call", "Key", "Verdict"]

#: The models of the server; one of the calls asks for another, ``gamma``, which does not exist.
MODELS: Final = ("alpha", "alpha-2", "beta", "slow")

#: The model whose workers answer when they are told to.
SLOW: Final = "slow"

# The patterns of model names that keys have, and which names each stands for.
_PATTERNS: Final[Mapping[str, frozenset[str]]] = {
    "alpha": frozenset({"alpha"}),
    "alpha*": frozenset({"alpha", "alpha-2"}),
    "?eta": frozenset({"beta"}),
    "eta": frozenset(),
    "Alpha": frozenset(),
    "*": frozenset({*MODELS, "gamma"}),
}

#: The scopes that keys have.
SCOPES: Final = (
    "inference",
    *(f"inference:{pattern}" for pattern in _PATTERNS),
    "models:read",
    "models:write",
    "metrics",
    "tokens",
    "console",
)

_NANOSECONDS: Final = 10**9
_MINUTE: Final = 60 * _NANOSECONDS


@frozen
class Call:
    """
    A request.

    :ivar scope: The scope that it needs; ``inference`` for one that a pattern allows, too.
    :ivar status: The status of the response, if it is allowed.
    :ivar model: The model in its path.
    """

    method: str
    path: str
    scope: str
    status: int = 200
    model: str | None = None

    def __str__(self) -> str:
        """Return the method and the path."""
        return f"{self.method} {self.path}"


#: Requests for every scope, for models that exist and one that does not.
CALLS: Final = (
    Call("GET", "/ping", "inference"),
    Call("GET", "/predictions/alpha", "inference", model="alpha"),
    Call("GET", "/predictions/alpha-2", "inference", model="alpha-2"),
    Call("GET", "/predictions/beta/1.0", "inference", model="beta"),
    Call("GET", "/predictions/gamma", "inference", 404, "gamma"),
    Call("GET", "/models", "models:read"),
    Call("GET", "/models/alpha", "models:read", model="alpha"),
    Call("GET", "/models/gamma", "models:read", 404, "gamma"),
    Call("PUT", "/models/alpha/1.0/set-default", "models:write", model="alpha"),
    Call("DELETE", "/models/gamma", "models:write", 404, "gamma"),
    Call("GET", "/keys", "tokens"),
    Call("DELETE", "/keys/nobody", "tokens", 404),
    Call("POST", "/token?type=inference", "tokens"),
)


@frozen
class Verdict:
    """
    The response that a request must get.

    :ivar why: The reason of a refusal in words; empty for none.
    :ivar retry_after: The seconds in the response.
    """

    status: int
    why: str = ""
    retry_after: int | None = None


@mutable(eq=False)
class Key:
    """
    A key that exists.

    :ivar former: The secret that it had before, and the first moment at which that is refused.
    :ivar ended: The expiry date that was seen to be over: it stays so, even if the date is set back.
    :ivar former_ended: Whether the secret before was seen to be refused for its age.
    :ivar in_flight: How many of its requests are being answered.
    """

    name: str
    secret: str = field(repr=False)
    scopes: tuple[str, ...]
    expires: datetime | None = None
    disabled: bool = False
    rate: int | None = None
    concurrent: int | None = None
    former: tuple[str, datetime] | None = field(default=None, repr=False)
    ended: datetime | None = None
    former_ended: bool = False
    in_flight: int = 0
    # Requests in the bucket, each worth a minute, at a time in nanoseconds.
    _spent: int = 0
    _seen: int = 0

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that may be good: the one that it has, and the one before."""
        return (self.secret,) if self.former is None else (self.secret, self.former[0])

    def problem(self, secret: str, now: datetime) -> str:
        """Return why a secret is refused that a client presents now, or nothing."""
        if self.disabled:
            return "it is disabled"
        if self.expires is not None and (now >= self.expires or self.ended == self.expires):
            self.ended = self.expires
            return "it has expired"
        if self.former is not None and secret == self.former[0] and (now >= self.former[1] or self.former_ended):
            self.former_ended = True
            return "its overlap is over"
        return ""

    def allows(self, call: Call) -> bool:
        """Return whether the scopes allow a request."""
        if call.scope in self.scopes:
            return True
        patterns = [_PATTERNS[scope.partition(":")[2]] for scope in self.scopes if scope.startswith("inference:")]
        if call.scope != "inference" or not patterns:
            return False
        return call.model is None or any(call.model in names for names in patterns)

    def limited(self, nanoseconds: int) -> Verdict | None:
        """Count a request, or return the refusal of one too many."""
        if self.concurrent is not None and self.in_flight >= self.concurrent:
            return Verdict(429, f"{self.in_flight} of its requests are in progress, and {self.concurrent} may be", 1)
        if self.rate is not None:
            self._refill(nanoseconds)
            missing = self._spent + _MINUTE - self.rate * _MINUTE
            if missing > 0:
                seconds = -(-missing // (self.rate * _NANOSECONDS))
                return Verdict(429, f"it has made all of {self.rate} requests a minute", seconds)
            self._spent += _MINUTE
        return None

    def limit(self, nanoseconds: int, rate: int | None, concurrent: int | None) -> None:
        """Change the limits: what was spent stays spent, but no more than the new rate allows."""
        if self.rate is not None:
            self._refill(nanoseconds)
        if rate is not None:
            self._spent = min(self._spent, rate * _MINUTE)
        self.rate, self.concurrent = rate, concurrent

    def begin_again(self, nanoseconds: int) -> None:
        """Forget what a server forgets when it stops."""
        self.ended, self.former_ended, self.in_flight = None, False, 0
        self._spent, self._seen = 0, nanoseconds

    def _refill(self, nanoseconds: int) -> None:
        if self.rate is not None:
            self._spent = max(0, self._spent - self.rate * max(0, nanoseconds - self._seen))
        self._seen = nanoseconds
