# SPDX-License-Identifier: Apache-2.0
"""Tests for the API description: it is valid, and it tells all that there is and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from openapi_spec_validator import validate
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role

ONE, TWO, THREE = (f"http://127.0.0.1:{port}" for port in (8080, 8081, 8082))

# Where the listeners are: each on its own, and shared in each way.
LAYOUTS = (
    (ONE, TWO, THREE),
    (ONE, ONE, THREE),
    (ONE, TWO, ONE),
    (ONE, TWO, TWO),
    (ONE, ONE, ONE),
)

# What there is without being described, and why.
HIDDEN = {
    # It refuses all methods but OPTIONS, which is described.
    "/": "any",
    # Whatever follows is ignored.
    "/ping/{}": "any",
    "/metrics/{}": "any",
    "/wfpredict/{}/{}": "any",
    # The word wfpredict in other spellings.
    "/{}/{}": "any",
    "/{}/{}/{}": "any",
    # The description says so in the words of POST.
    "/token": "GET",
}

METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")


def servers() -> Iterator[tuple[MemoryServer, Role]]:
    """Make servers of every layout, with and without tokens and extras, and go through their listeners."""
    for inference, management, metrics in LAYOUTS:
        for disabled, extras in ((False, True), (True, False)):
            options = {
                "inference_address": inference,
                "management_address": management,
                "metrics_address": metrics,
                "disable_token_authorization": disabled,
                "ts_open_inference_protocol": extras,
            }
            with MemoryServer(options) as server:
                addresses: dict[str, Role] = {}
                for role, address in zip(Role, (inference, management, metrics), strict=True):
                    addresses[address] = addresses.get(address, Role(0)) | role
                for roles in addresses.values():
                    yield server, roles


def describe(server: MemoryServer, roles: Role) -> Any:
    """Ask a listener for its description."""
    return server.request("OPTIONS", "/", role=first_of(roles)).json


def plain(path: str) -> str:
    """Write a path without the names of its parameters."""
    return re.sub(r"<[^>]*>|\{[^}]*\}", "{}", path)


def first_of(roles: Role) -> Role:
    """Return one role of several (Python 3.10 cannot iterate over a flag)."""
    return next(role for role in Role if role & roles)


def served(server: MemoryServer, roles: Role) -> set[tuple[str, str]]:
    """Return all routes of a listener: path and method, ``any`` for one that takes all."""
    guard = server.server.site_of(first_of(roles)).resource
    found = set()
    for tree in guard._unguarded_trees.values():
        for rule in getattr(tree, "tree", tree)._app.url_map.iter_rules():
            for method in rule.methods or {"any"}:
                if method != "HEAD":
                    found.add((plain(rule.rule), method))
    return found


class DescriptionTests(SynchronousTestCase):
    """Tests for `describe_api` on real listeners."""

    def test_valid(self) -> None:
        """Every description is an OpenAPI 3.0 document, with the operations' ids unique."""
        for server, roles in servers():
            document = describe(server, roles)
            validate(document)
            self.assertEqual(document["openapi"], "3.0.1")
            ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
            self.assertEqual(len(ids), len(set(ids)))

    def test_complete(self) -> None:
        """What a listener serves, it describes, but for what is hidden on purpose; it describes nothing else."""
        for server, roles in servers():
            routes = served(server, roles)
            described = {
                (plain(path), method.upper())
                for path, operations in describe(server, roles)["paths"].items()
                for method in operations
            }
            for path, method in routes:
                if method == "any":
                    known = any((path, each) in described for each in METHODS)
                else:
                    known = (path, method) in described
                self.assertTrue(known or HIDDEN.get(path) == method, (roles, path, method))
            for path, method in described:
                self.assertTrue({(path, method), (path, "any")} & routes, (roles, path, method))

    def test_hidden_are_there(self) -> None:
        """What is hidden on purpose exists: the list of it is not older than the routes."""
        routes = {route for server, roles in servers() for route in served(server, roles)}
        self.assertEqual(set(HIDDEN.items()) - routes, set())

    def test_only_its_roles(self) -> None:
        """A listener of its own describes no route of another."""
        with MemoryServer() as server:
            paths = {role: set(describe(server, role)["paths"]) for role in Role}
        common = {"/", "/api-description", "/docs", "/livez", "/readyz"}
        # KServe's clients ask both listeners which models there are.
        for role in (Role.INFERENCE, Role.MANAGEMENT):
            self.assertLess({"/v1/models", "/v1/models/{model_name}"}, paths[role])
            paths[role] -= {"/v1/models", "/v1/models/{model_name}"}
        for role in Role:
            self.assertLess(common, paths[role])
            for other in Role:
                if other is not role:
                    self.assertEqual(paths[role] & paths[other], common)

    def test_keys(self) -> None:
        """Each route's key is the one that it needs; without tokens no key is mentioned, nor is there /token."""
        for server, roles in servers():
            document = describe(server, roles)
            tokens = server.server.keys is not None
            self.assertEqual("securitySchemes" in document.get("components", {}), tokens and roles is not Role.METRICS)
            self.assertEqual("/token" in document["paths"], tokens and bool(roles & Role.MANAGEMENT))
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    security = operation.get("security", [])
                    self.assertTrue(tokens or not security)
                    self.assertLessEqual(len(security), 1)
                    for scheme in security:
                        self.assertIn(next(iter(scheme)), document["components"]["securitySchemes"])
                    if tokens:
                        self.check_key(server, roles, method.upper(), path, [TokenKind(*each) for each in security])

    def check_key(self, server: MemoryServer, roles: Role, method: str, path: str, needed: list[TokenKind]) -> None:
        """Ask with no key and with each one."""
        target = re.sub(r"\{[^}]*\}", "absent", path)
        role = first_of(roles)
        for kind in (None, *TokenKind):
            key = None if kind is None else server.key(kind)
            answer = server.request(method, target, key, role=role)
            refused = b"InvalidKeyException" in answer.body
            self.assertEqual(refused, bool(needed) and kind not in needed, (roles, method, path, kind))

    def test_where(self) -> None:
        """The description is at ``OPTIONS /`` and at ``/api-description``, for any method there."""
        with MemoryServer() as server:
            for role in Role:
                whole = describe(server, role)
                for method in ("GET", "POST", "OPTIONS"):
                    self.assertEqual(server.request(method, "/api-description", role=role).json, whole)
