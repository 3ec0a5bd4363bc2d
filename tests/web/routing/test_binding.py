# SPDX-License-Identifier: Apache-2.0
"""Tests for the rules and the fast path that are made of routes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.listening.roles import Role
from twisted_serve.web.api.route import Surface
from twisted_serve.web.api.surface import EVERY_ROUTE
from twisted_serve.web.routing.binding import fast_routes, require_endpoints, rules_of
from twisted_serve.web.routing.klein_app import add_rules, apps_of, new_app


def respond(*_arguments: object) -> Any:
    """Stand for any endpoint."""


class BindingTests(SynchronousTestCase):
    """Tests for the module's functions, and for :func:`add_rules`."""

    def test_scopes(self) -> None:
        """Each route is in the application of its scope and in no other."""
        apps = {scope: new_app() for scope in (None, *TokenKind)}
        bound = [route for route in EVERY_ROUTE if route.bound]
        add_rules(apps, EVERY_ROUTE)
        for scope, app in apps.items():
            found = {str(rule.endpoint) for rule in app.url_map.iter_rules()}
            self.assertEqual(found, {route.operation_id for route in bound if route.scope is scope})

    def test_missing_endpoint(self) -> None:
        """A route without an endpoint is an error when the listener is made."""
        self.assertRaises(KeyError, require_endpoints, EVERY_ROUTE, {})

    def test_shared_rules(self) -> None:
        """Servers of one process share the rules of equal listeners, and nothing else."""
        surface = Surface(Role.INFERENCE, tokens=True)
        app, same = apps_of(surface)[None], apps_of(Surface(Role.INFERENCE, tokens=True))[None]
        self.assertIs(app, same)
        one, other = (app.bound_to({"live": lambda request, name=name: name}) for name in ("one", "other"))
        self.assertIs(one.url_map, other.url_map)
        request: Any = None
        self.assertEqual(
            [each.execute_endpoint("live", request) for each in (one, other, one)], ["one", "other", "one"]
        )
        self.assertIsNot(app, apps_of(Surface(Role.INFERENCE, tokens=False))[None])

    def test_rules(self) -> None:
        """What follows a path, and other spellings of its first segment, have rules that are not described."""
        rules = {route.operation_id: list(rules_of(route)) for route in EVERY_ROUTE}
        self.assertEqual(rules["ping"], ["/ping", "/ping/<path:rest>"])
        self.assertEqual(rules["v1_model_ready"], ["/v1/models/<unmarked:model>"])
        self.assertEqual(rules["path_predictions"], ["/predictions/<model>/<version>/<rest:rest>"])
        self.assertEqual(
            rules["wfpredict"],
            [
                "/wfpredict/<workflow>",
                "/wfpredict/<workflow>/<rest:rest>",
                "/<any_case(wfpredict):word>/<workflow>",
                "/<any_case(wfpredict):word>/<workflow>/<rest:rest>",
            ],
        )

    def test_fast(self) -> None:
        """All routes with the first segment of a fast route are fast: the fast path asks for nothing else."""
        endpoints = dict.fromkeys([route.operation_id for route in EVERY_ROUTE], respond)
        fast = fast_routes(EVERY_ROUTE, endpoints)
        self.assertEqual(
            {first: (way.named, way.needed) for first, way in fast.items()}, {"ping": (0, 0), "predictions": (2, 1)}
        )
        for route in EVERY_ROUTE:
            if route.bound and route.first in fast:
                self.assertTrue(route.fast and route.any_method, route)
                self.assertTrue(
                    all(piece.parameter is not None and not piece.text for piece in route.pieces[1:]), route
                )
