# SPDX-License-Identifier: Apache-2.0
"""Tests for the stop of a server that has clients of gRPC: health first, then GOAWAY, then the end of the calls."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.listening.roles import Role
from twisted_serve.rpc.messages import (
    HealthCheckRequest,
    HealthCheckResponse,
    PredictionResponse,
    PredictionsRequest,
)
from twisted_serve.rpc.statuses import Code
from twisted_serve.testing.rpc import MemoryRpcCall, MemoryRpcConnection
from twisted_serve.testing.server import MemoryServer

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
PREDICT = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
REQUEST = PredictionsRequest(model_name="m", input={"data": b"x"})

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
DELAY = 10


def states(call: MemoryRpcCall) -> list[int]:
    return [each.status for each in call.parsed(HealthCheckResponse)]


class ShutdownTests(SynchronousTestCase):
    """A server with a model, without keys."""

    def start(self, delay: float) -> MemoryRpcConnection:
        """Start a server, and connect to it."""
        options = {"disable_token_authorization": True, "shutdown_delay": delay}
        self.server = MemoryServer(options, models={"m": {}})
        self.addCleanup(self.server.close)
        self.factory = self.server.server.grpc_factory(Role.INFERENCE)
        return self.connect()

    def connect(self) -> MemoryRpcConnection:
        return MemoryRpcConnection(self.factory, lambda: self.server.clock.advance(0))

    def stop(self) -> Deferred[None]:
        """Begin to stop the server."""
        return self.server.server.stopService()

    def advance(self, seconds: float, connection: MemoryRpcConnection) -> None:
        self.server.advance(seconds)
        connection.pump()

    def test_delay(self) -> None:
        """For ``shutdown_delay`` the server says that it does not serve, and serves; then all that lasts ends."""
        connection = self.start(DELAY)
        watching = [connection.call(WATCH, HealthCheckRequest(service=name)) for name in ("", "m", "liveness")]
        self.assertEqual([states(call) for call in watching], [[SERVING]] * 3)
        stopped = self.stop()
        self.advance(1, connection)
        self.assertEqual([states(call) for call in watching], [[SERVING, NOT_SERVING]] * 2 + [[SERVING]])
        for name, state in (("", NOT_SERVING), ("m", NOT_SERVING), ("liveness", SERVING)):
            self.assertEqual(states(self.connect().call(CHECK, HealthCheckRequest(service=name))), [state])
        late = self.connect().call(WATCH, HealthCheckRequest())
        self.assertEqual(states(late), [NOT_SERVING])
        call = self.connect().call(PREDICT, REQUEST)
        self.assertEqual((call.parsed(PredictionResponse)[0].prediction, call.code), (b"x", Code.OK))
        self.assertEqual(connection.going, [])
        self.assertNoResult(stopped)

        self.advance(DELAY - 1, connection)
        self.assertEqual([call.code for call in watching], [Code.UNAVAILABLE] * 3)
        self.assertEqual(len(connection.going), 2)
        self.assertFalse(connection.open)

    def test_no_delay(self) -> None:
        """Clients that watch learn the last state, and do not hold the stop back until its limit."""
        connection = self.start(0)
        watching = connection.call(WATCH, HealthCheckRequest())
        stopped = self.stop()
        self.advance(0, connection)
        self.assertEqual((states(watching), watching.code), ([SERVING, NOT_SERVING], Code.UNAVAILABLE))
        self.assertFalse(connection.open)
        self.advance(5, connection)
        self.successResultOf(stopped)

    def test_call_in_progress(self) -> None:
        """A call in progress is answered; what begins after the second GOAWAY is not."""
        connection = self.start(0)
        (worker,) = self.server.provider.workers
        worker.holding = True
        call = connection.call(PREDICT, REQUEST)
        stopped = self.stop()
        self.advance(0, connection)
        self.assertTrue(connection.open)
        self.assertIsNone(call.code)
        self.assertEqual([code for _last, code in connection.going], [0, 0])
        worker.answer()
        self.advance(0, connection)
        self.assertEqual((call.parsed(PredictionResponse)[0].prediction, call.code), (b"x", Code.OK))
        self.assertFalse(connection.open)
        self.advance(5, connection)
        self.successResultOf(stopped)
