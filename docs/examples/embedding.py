# SPDX-License-Identifier: Apache-2.0
"""
An application with a model server in it.

Run it as ``python embedding.py MODEL_STORE PORT``; look at ``http://127.0.0.1:PORT``.
"""

from __future__ import annotations

import sys

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import globalLogBeginner
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_serve import ModelServer, Role, ServerOptions
from twisted_serve.logs import console


class Front(Resource):
    """The application's own page."""

    isLeaf = True

    def __init__(self, models: ModelServer) -> None:
        super().__init__()
        self._models = models

    def render_GET(self, request: object) -> bytes:
        """Tell where the models are, as soon as they are there."""
        if not self._models.ready.called:
            return b"The models are being loaded.\n"
        return f"Ask the models at {self._models.addresses[Role.INFERENCE]}\n".encode()


def make_application(model_store: str, port: int) -> MultiService:
    """Build a service of two: the model server, and a page."""
    application = MultiService()
    models = ModelServer(
        reactor,
        ServerOptions(
            model_store=model_store,
            load_models="all",
            default_workers_per_model=1,
            inference_address="http://127.0.0.1:0",  # 0: a port that is free
            management_address="http://127.0.0.1:0",
            enable_metrics_api=False,
        ),
    )
    models.setServiceParent(application)
    endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
    StreamServerEndpointService(endpoint, Site(Front(models))).setServiceParent(application)

    # The log on stdout, with live keys blacked out.
    log = console(sys.stdout, lambda: [token.secret for token in models.keys or ()])
    globalLogBeginner.beginLoggingTo([log])
    return application


if __name__ == "__main__":
    application = make_application(sys.argv[1], int(sys.argv[2]))
    application.startService()
    reactor.addSystemEventTrigger("before", "shutdown", application.stopService)
    reactor.run()
