# SPDX-License-Identifier: Apache-2.0
"""
Run the public state machine over keys and time below the site of an application, as at the server's own listeners.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from klein import Klein
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from twisted_serve.listening.roles import Role
from twisted_serve.service import ModelServer
from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.mounted import MountedServer
from twisted_serve.testing.server import NoAnswerYet


class InKlein(MountedServer):
    """The server below a Klein application, beside its own routes."""

    paths = {Role.INFERENCE: "/ml", Role.MANAGEMENT: "/ml-admin"}

    def make_site(self, server: ModelServer) -> Site:
        app = Klein()

        @app.route("/")
        def front(_request: Any) -> str:
            return "My application"

        @app.route("/ml/", branch=True)
        def inference(_request: Any) -> Any:
            return server.resource(Role.INFERENCE)

        @app.route("/ml-admin/", branch=True)
        def management(_request: Any) -> Any:
            return server.resource(Role.MANAGEMENT)

        return Site(app.resource(), reactor=self.clock)


class MountedMachine(TokenMachine):
    """The server below a plain site."""

    def make_server(self) -> MountedServer:
        return MountedServer(self.options)


class KleinMachine(TokenMachine):
    """The server below a Klein application."""

    options = {"token_expiration_min": 5, "token_refusal_status": 401}

    def make_server(self) -> MountedServer:
        return InKlein(self.options)


MountedMachineTests = MountedMachine.TestCase
MountedMachineTests.settings = settings(max_examples=3, stateful_step_count=8)
KleinMachineTests = KleinMachine.TestCase
KleinMachineTests.settings = settings(max_examples=4, stateful_step_count=8)


class MountedServerTests(SynchronousTestCase):
    """Tests for a server in memory, mounted."""

    def test_application(self) -> None:
        """The application's routes answer beside the server's, without a key."""
        with InKlein(models={"greet": {}}) as server:
            connection = server.connect()
            self.assertEqual(connection.get("/"), 200)
            self.assertIn(b"My application", connection.received)
            self.assertEqual(connection.get("/ml/predictions/greet"), 400)
            key = server.keys.inference.secret
            answer = server.request("POST", "/predictions/greet", key, body=b"Ada")
            self.assertEqual((answer.status, answer.body), (200, b"Ada"))
            models = server.request("GET", "/models", server.keys.management.secret).json["models"]
            self.assertEqual([model["modelName"] for model in models], ["greet"])
            self.assertRaisesRegex(LookupError, "no path for METRICS: /metrics", server.request, "GET", "/metrics")

    def test_time(self) -> None:
        """A held worker answers later, and a response that takes too long is given up."""
        with MountedServer({"default_response_timeout": 60}, models={"slow": {}}) as server:
            [worker] = server.provider.workers
            worker.holding = True
            waiting = server.send("POST", "/predictions/slow", server.keys.inference.secret, body=b"1")
            self.assertRaises(NoAnswerYet, server.answered, waiting)
            server.advance(61)
            self.assertEqual(server.answered(waiting).status, 500)

    def test_restart(self) -> None:
        """After a restart the site has the new server, with its new keys."""
        with MountedServer(models={"greet": {}}) as server:
            old = server.keys.inference.secret
            server.restart()
            self.assertEqual(server.request("GET", "/ping", old).status, 400)
            self.assertEqual(server.request("GET", "/ping", server.keys.inference.secret).status, 200)
