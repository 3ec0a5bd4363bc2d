# SPDX-License-Identifier: Apache-2.0
"""What tests of requests with named keys share: a server in memory whose named keys the test sets."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from attrs import evolve

from twisted_serve.auth.named.live import NamedKeys
from twisted_serve.auth.named.records import Former, NamedKey
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.named.secrets import fresh_secret
from twisted_serve.interfaces import Operation
from twisted_serve.listening.roles import Role
from twisted_serve.rpc.methods import SERVICES, paths_of
from twisted_serve.testing.server import MemoryServer

#: Every part of the API, on listeners of its own.
EVERYTHING: Mapping[str, Any] = {
    "grpc_reflection": True,
    "ts_open_inference_protocol": True,
    "enable_model_api": True,
}


class KeyedServer(MemoryServer):
    """
    A server whose named keys are set without its store.

    :ivar named: The live keys.
    """

    named: NamedKeys

    def _start(self) -> None:
        self.options = evolve(self.options, token_store=self.directory / "keys.json")
        super()._start()
        site: Any = self.server.site_of(Role.INFERENCE)
        self.named = site.authorizer._named
        self._records: dict[str, NamedKey] = {}
        self._random = random.Random(1)

    def put(self, name: str, *scopes: str, **fields: Any) -> str:
        """Make a key, in place of one of this name if there is one, and return its secret."""
        secret = fresh_secret(self._random.randbytes)
        digest = sha256(secret.encode("ascii")).hexdigest()
        self._records[name] = NamedKey(name, digest, KeyScopes(scopes), self.now(), **fields)
        self._use()
        return secret

    def change(self, name: str, **fields: Any) -> None:
        """Change a key."""
        self._records[name] = evolve(self._records[name], **fields)
        self._use()

    def rename(self, name: str, new: str) -> None:
        """Give a key another name."""
        self._records[new] = evolve(self._records.pop(name), name=new)
        self._use()

    def rotate_named(self, name: str, overlap: float = 0.0) -> str:
        """Replace the secret of a key, and return the new one; the old one is good for some seconds."""
        old = self._records[name]
        former = Former(old.sha256, self.now() + timedelta(seconds=overlap)) if overlap else None
        secret = fresh_secret(self._random.randbytes)
        self.change(name, sha256=sha256(secret.encode("ascii")).hexdigest(), former=former)
        return secret

    def revoke(self, name: str) -> None:
        """Remove a key."""
        del self._records[name]
        self._use()

    def in_flight(self, name: str) -> int:
        """Return how many requests of a key are in progress."""
        return self.named.index.by_name[name].state.usage.in_flight

    def _use(self) -> None:
        self.named.use(self.named.indexed(self._records.values()))


def all_methods() -> Iterator[tuple[str, Role, Operation | None]]:
    """Yield each method of gRPC with the roles of its listeners and its operation."""
    for name, service in SERVICES.items():
        for path, operation in paths_of(name).items():
            yield path, service.roles, operation
