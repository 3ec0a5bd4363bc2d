# SPDX-License-Identifier: Apache-2.0
"""Tests for the scopes of named keys by gRPC: each method of each listener with each scope."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys_case import EVERYTHING, KeyedServer, all_methods
from twisted_serve.auth.named.scopes import SCOPES
from twisted_serve.auth.scopes import required
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.server import Role

SHARED = {**EVERYTHING, "grpc_inference_port": 7000, "grpc_management_port": 7000}


class MethodTests(SynchronousTestCase):
    """Each method is let in exactly where its operation is the scope's, at its headers."""

    def tried(self, server: KeyedServer, here: Role) -> int:
        """Call each method of a listener with each scope, and return how many were let in."""
        role = Role.INFERENCE if here & Role.INFERENCE else Role.MANAGEMENT
        let_in = 0
        for scope, operations in SCOPES.items():
            key = server.put("k", scope)
            for path, roles, operation in all_methods():
                connection = server.grpc(role)
                call = connection.begin(path, key)
                connection.leave()
                public = operation is not None and required(operation) is None
                if operation is None or not roles & here:
                    # It needs the listener's own key: of named keys only that of all inference may be one.
                    wanted = scope == "inference" and bool(here & Role.INFERENCE)
                else:
                    wanted = public or operation in operations
                self.assertEqual(call.code != Code.PERMISSION_DENIED, wanted, f"{scope} {path} {here}")
                let_in += wanted
        self.assertEqual(server.in_flight("k"), 0)
        return let_in

    def test_apart(self) -> None:
        """Listeners of their own."""
        with KeyedServer(EVERYTHING, models={"m": {}}) as server:
            self.assertGreater(self.tried(server, Role.INFERENCE), 40)
            self.assertGreater(self.tried(server, Role.MANAGEMENT), 20)

    def test_together(self) -> None:
        """A listener for both roles."""
        with KeyedServer(SHARED, models={"m": {}}) as server:
            self.assertGreater(self.tried(server, Role.INFERENCE | Role.MANAGEMENT), 40)
