# SPDX-License-Identifier: Apache-2.0
"""The application's tests, for trial: they find no timer, socket or process that is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bcrypt
import treq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from shop.app import Shop
from twisted_serve import Role


class AppTests(TestCase):
    """Both servers on trial's reactor."""

    timeout = 60

    def test_both(self) -> Deferred[None]:
        """Users get in with passwords, clients with keys, and the application without either."""
        return Deferred.fromCoroutine(self.both())

    async def both(self) -> None:
        from twisted.internet import reactor

        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        shop = Shop(reactor, directory, [b"ann:" + bcrypt.hashpw(b"pw", bcrypt.gensalt(4))])
        self.addCleanup(lambda: Deferred.fromCoroutine(shop.end()))
        site = f"http://127.0.0.1:{await shop.begin()}"
        client = treq.client.HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

        async def ask(url: str, **how: Any) -> tuple[int, bytes]:
            response = await client.post(f"{url}", data=b"hi", **how)
            return response.code, await response.content()

        shout = f"{site}/ml/predictions/shout"
        self.assertEqual(await ask(shout, auth=("ann", "pw")), (200, b"HI ann"))
        for unknown in (("ann", "no"), ("eve", "pw")):
            self.assertEqual((await ask(shout, auth=unknown))[0], 401)
        self.assertEqual(await ask(f"{site}/about"), (200, b"a shop"))

        shout = f"http://127.0.0.1:{shop.outside.addresses[Role.INFERENCE].port}/predictions/shout"
        assert shop.outside.keys is not None
        key = shop.outside.keys.inference.secret
        self.assertEqual(await ask(shout, headers={"Authorization": f"Bearer {key}"}), (200, b"HI None"))
        self.assertEqual((await ask(shout, auth=("ann", "pw")))[0], 400)
        for server in (shop.inside, shop.outside):
            self.assertEqual((await server.predict("shout", b"own")).body, b"OWN None")
        self.assertIsNone(shop.inside.keys)
