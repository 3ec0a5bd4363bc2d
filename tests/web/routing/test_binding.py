# SPDX-License-Identifier: Apache-2.0
"""Tests for the rules and the fast path that are made of routes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.web.api.surface import EVERY_ROUTE
from twisted_serve.web.routing.binding import bind, fast_routes, rules_of
from twisted_serve.web.routing.klein_app import new_app


def respond(*_arguments: object) -> Any:
    """Stand for any endpoint."""


class BindingTests(SynchronousTestCase):
    """Tests for :func:`bind`, :func:`rules_of` and :func:`fast_routes`."""

    def test_scopes(self) -> None:
        """Each route is in the application of its scope and in no other."""
        apps = {scope: new_app() for scope in (None, *TokenKind)}
        bound = [route for route in EVERY_ROUTE if route.bound]
        bind(apps, EVERY_ROUTE, dict.fromkeys([route.operation_id for route in bound], respond))
        for scope, app in apps.items():
            found = {str(rule.endpoint) for rule in app.url_map.iter_rules()}
            self.assertEqual(found, {route.operation_id for route in bound if route.scope is scope})

    def test_missing_endpoint(self) -> None:
        """A route without an endpoint is an error when the listener is made."""
        apps = {scope: new_app() for scope in (None, *TokenKind)}
        self.assertRaises(KeyError, bind, apps, EVERY_ROUTE, {})

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
