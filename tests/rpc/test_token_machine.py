# SPDX-License-Identifier: Apache-2.0
"""Tests for the keys of gRPC in time: the state machine of keys, with a client of gRPC in place of one of HTTP."""

from __future__ import annotations

from hypothesis import settings

from twisted_serve.rpc.methods import INFERENCE, MANAGEMENT
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.server import Role

#: The methods that need the same keys as the machine's paths.
METHODS = {
    "/ping": (Role.INFERENCE, f"/{INFERENCE}/Ping"),
    "/models": (Role.MANAGEMENT, f"/{MANAGEMENT}/ListModels"),
}


class GrpcTokenMachine(TokenMachine):
    """The machine of keys, which asks by gRPC; keys are replaced by HTTP, as gRPC has no method for that."""

    def _status(self, method: str, path: str, *authorization: str) -> int:
        if path not in METHODS:
            return super()._status(method, path, *authorization)
        role, called = METHODS[path]
        connection = self.server.grpc(role)
        # Blanks around a value are no part of it.
        call = connection.call(called, b"", metadata=[("authorization", value.strip()) for value in authorization])
        connection.leave()
        assert call.code in (Code.OK, Code.PERMISSION_DENIED), f"{called} ended with {call.code}: {call.text}"
        return 200 if call.code == Code.OK else self.server.options.token_refusal_status


TestGrpcTokens = GrpcTokenMachine.TestCase
TestGrpcTokens.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
