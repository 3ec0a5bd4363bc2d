# SPDX-License-Identifier: Apache-2.0
"""Tests for the key that each path needs, as far as it follows from rules and not from one route."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.listening.roles import Role
from twisted_serve.web.api.access import access_policy
from twisted_serve.web.api.segments import CLAIMED
from twisted_serve.web.api.surface import routes_of

GUARDED = (
    Role.INFERENCE,
    Role.MANAGEMENT,
    Role.INFERENCE | Role.MANAGEMENT,
    Role.INFERENCE | Role.METRICS,
    Role.INFERENCE | Role.MANAGEMENT | Role.METRICS,
)
METHODS = st.sampled_from([b"GET", b"POST", b"OPTIONS", b"get"])
SEGMENTS = st.lists(
    st.sampled_from([*sorted(CLAIMED), "m", "m:predict", "LIVEZ", "Docs", "rotate", "", "x"]), max_size=4
)


class AccessTests(SynchronousTestCase):
    """Tests for :func:`access_policy`."""

    @given(st.sampled_from(GUARDED), st.booleans(), METHODS, SEGMENTS)
    def test_open_is_exact(self, roles: Role, exempt_ping: bool, method: bytes, segments: list[str]) -> None:
        """A public path is the path of a public route, or one below the metrics of a listener that has them."""
        if access_policy(roles, exempt_ping)(method, Target(tuple(segments))) is None:
            public = {route.path for route in routes_of(roles, exempt_ping) if route.scope is None}
            below_metrics = bool(roles & Role.METRICS) and segments[:1] == ["metrics"]
            self.assertTrue("/" + "/".join(segments) in public or below_metrics, segments)
            self.assertTrue(segments or method == b"OPTIONS")

    def test_flaw(self) -> None:
        """A malformed target needs the key that an unknown path needs."""
        for roles in GUARDED:
            policy = access_policy(roles, True)
            flawed = policy(b"OPTIONS", Target((), flaw="it contains a dot segment"))
            self.assertIsNotNone(flawed)
            self.assertIs(flawed, policy(b"GET", Target(("unknown",))))

    @given(METHODS, SEGMENTS)
    def test_key_replacement_is_exact(self, method: bytes, segments: list[str]) -> None:
        """The API key opens ``/token`` and the paths of named keys, and nothing else."""
        first, rest = segments[:1], segments[1:]
        exact = segments == ["token"] or (first == ["keys"] and (len(rest) < 2 or rest[1:] == ["rotate"]))
        for roles in GUARDED:
            needed = access_policy(roles, False)(method, Target(tuple(segments)))
            self.assertEqual(needed is TokenKind.API, exact and bool(roles & Role.MANAGEMENT))
