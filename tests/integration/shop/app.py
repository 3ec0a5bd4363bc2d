# SPDX-License-Identifier: Apache-2.0
"""The application: its site has a server for users with passwords in it; the other server has keys and ports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from htpasswd import HtpasswdChecker  # docs/examples/htpasswd.py
from klein import Klein
from twisted.application.service import MultiService
from twisted.cred.portal import Portal
from twisted.internet.endpoints import serverFromString
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from twisted_serve import Dependencies, ModelServer, Role, ServerOptions
from twisted_serve.auth.cred import ModelRealm, PortalAuthorizer


class Shop(MultiService):
    """Both servers, and the site."""

    def __init__(self, reactor: Any, directory: Path, users: Iterable[bytes]) -> None:
        super().__init__()
        authorizer = PortalAuthorizer(Portal(ModelRealm(), [HtpasswdChecker(users)]), realm="shop")
        options = ServerOptions(temp_directory=directory)
        self.inside = ModelServer(reactor, options, Dependencies(authorizer=authorizer), listen=False)
        addresses = {f"{role}_address": "tcp:0:interface=127.0.0.1" for role in ("inference", "management", "metrics")}
        options = ServerOptions(temp_directory=directory, token_key_file=directory / "keys.json", **addresses)
        self.outside = ModelServer(reactor, options)
        for server in (self.inside, self.outside):
            server.setServiceParent(self)
        app = Klein()

        @app.route("/about")
        def about(request: IRequest) -> bytes:
            return b"a shop"

        @app.route("/ml/", branch=True)
        def models(request: IRequest) -> IResource:
            return self.inside.resource(Role.INFERENCE)

        self._site = Site(app.resource())
        self._endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")

    async def begin(self) -> int:
        """Start, and return the port of the site."""
        self.startService()
        for server in (self.inside, self.outside):
            await server.register(name="shout", handler="shop.models:Shout")
        self._port = await self._endpoint.listen(self._site)
        number: int = self._port.getHost().port
        return number

    async def end(self) -> None:
        """Stop."""
        await self._port.stopListening()
        await self.stopService()
