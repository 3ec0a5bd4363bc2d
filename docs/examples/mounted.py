# SPDX-License-Identifier: Apache-2.0
"""
An application of Klein with a model that is its own code, for its own pages and for clients with a key.

Run it as ``python mounted.py PORT``; look at ``http://127.0.0.1:PORT/greet/Ada``.
"""

from __future__ import annotations

import sys
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from twisted_serve import ModelServer, Role, ServerOptions, errors


class Pages:
    """The pages of the application."""

    app = Klein()

    def __init__(self, models: ModelServer) -> None:
        self._models = models
        self._inference = models.resource(Role.INFERENCE)

    @app.route("/greet/<name>")
    async def greet(self, request: IRequest, name: str) -> bytes:
        """Ask the model, without HTTP and without a key."""
        try:
            answer = await self._models.predict("greeter", name.encode(), timeout=5)
        except errors.ServeError as error:
            request.setResponseCode(error.status)
            return error.message.encode()
        return answer.body

    @app.route("/ml/", branch=True)
    def models(self, request: IRequest) -> IResource:
        """Serve ``/ml/predictions/greeter`` and the rest of the inference API to clients with a key."""
        return self._inference


async def main(reactor: Any, port: str) -> None:
    """Serve until the reactor stops."""
    models = ModelServer(reactor, ServerOptions(), listen=False)
    models.startService()
    reactor.addSystemEventTrigger("before", "shutdown", models.stopService)
    await models.register(name="greeter", handler="greeter:Greeter")
    site = Site(Pages(models).app.resource())
    await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(site)
    print("serving", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor, port: Deferred.fromCoroutine(main(reactor, port)), sys.argv[1:])
