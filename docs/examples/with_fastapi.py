# SPDX-License-Identifier: Apache-2.0
"""
A FastAPI application and a model server on one event loop, each of which calls the other.

Run it as ``python with_fastapi.py PORT MODEL_PORT``; look at ``http://127.0.0.1:PORT/greet/Ada``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from zope.interface import implementer

from twisted_serve import (
    AccessRequest,
    Dependencies,
    IAuthorizer,
    ModelServer,
    Principal,
    Refusal,
    ServerOptions,
    errors,
)


@implementer(IAuthorizer)
class Members:
    """The members of the application, who may ask its models."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def join(self, name: str) -> None:
        """Add a member."""
        self._names.add(name)

    async def find(self, authorization: bytes) -> Principal | Refusal:
        """Look a member up, as a database of asyncio would."""
        await asyncio.sleep(0)
        scheme, _, name = authorization.decode("ascii", "replace").partition(" ")
        known = scheme == "Member" and name in self._names
        return Principal(name) if known else Refusal(401, challenge='Member realm="models"')

    def authorize(self, asked: AccessRequest) -> Deferred[Principal | Refusal]:
        """Answer the model server: Twisted awaits what asyncio runs."""
        task = asyncio.ensure_future(self.find(b" ".join(asked.authorization)))
        return Deferred.fromFuture(task)


def make_application(reactor: Any, model_port: str) -> FastAPI:
    """Build the application, whose life is the model server's."""
    loop = asyncio.get_running_loop()
    members = Members()
    anywhere = f"http://127.0.0.1:{model_port}"
    options = ServerOptions(inference_address=anywhere, management_address=anywhere, enable_metrics_api=False)
    models = ModelServer(reactor, options, Dependencies(authorizer=members))

    @asynccontextmanager
    async def running(_application: FastAPI) -> AsyncIterator[None]:
        models.startService()
        try:
            await models.register(name="greeter", handler="greeter:Greeter").asFuture(loop)
            yield
        finally:
            await models.stopService().asFuture(loop)

    application = FastAPI(lifespan=running)

    @application.get("/greet/{name}")
    async def greet(name: str) -> str:
        """Ask the model: asyncio awaits what Twisted runs."""
        try:
            answer = await models.predict("greeter", name.encode(), timeout=5).asFuture(loop)
        except errors.ServeError as error:
            raise HTTPException(error.status, error.message) from error
        members.join(name)
        return answer.body.decode()

    return application


class Server(uvicorn.Server):
    """A server of uvicorn that leaves signals, and the end of the process, to Twisted."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Set no handlers."""
        yield

    async def run_to_end(self) -> None:
        """Serve; where uvicorn would end the process, because it cannot listen, fail instead."""
        try:
            await self.serve()
        except SystemExit as e:
            raise RuntimeError(f"uvicorn ended with status {e.code}") from None


def serve(reactor: Any, port: str, model_port: str) -> Deferred[None]:
    """Serve until the reactor stops: first uvicorn ends, which stops the model server, and then the reactor."""
    config = uvicorn.Config(
        lambda: make_application(reactor, model_port), factory=True, port=int(port), log_level="warning"
    )
    server = Server(config)
    ended = Deferred.fromFuture(loop.create_task(server.run_to_end()))

    def stop() -> Deferred[None]:
        server.should_exit = True
        return ended

    reactor.addSystemEventTrigger("before", "shutdown", stop)
    return ended


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    asyncioreactor.install(loop)
    react(serve, sys.argv[1:])
