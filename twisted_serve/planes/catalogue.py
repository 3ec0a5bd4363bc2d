# SPDX-License-Identifier: Apache-2.0
"""
This module implements the catalogue: the registered model versions, each with its pool of workers.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted_serve.errors import ModelNotFound, ServiceUnavailable
from twisted_serve.models.registry import Registry
from twisted_serve.models.version import ModelVersion
from twisted_serve.scheduling.pool import Pool


class Catalogue:
    """
    What can be predicted with now.

    :ivar registry: The registered versions; replaced as a whole by each change.
    :ivar starting: Whether start-up models are still being registered, so that a
        model which is not there may be about to come.
    :ivar missing: The start-up models that could not be registered, the location of each by its name; a registration
        with one of both takes it out.
    :ivar stopping: Whether the server is on its way out.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self.starting = False
        self.missing: dict[str, str] = {}
        self.stopping = False
        self._pools: dict[tuple[str, str], Pool] = {}

    def resolve(self, name: str, version: str | None) -> ModelVersion:
        """
        Find a version, the default one for ``None``.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        :raise ServiceUnavailable: if it is not there, but may be in a moment.
        """
        try:
            return self.registry.resolve(name, version)
        except ModelNotFound:
            if self.starting:
                raise ServiceUnavailable("The server is starting and still loads models.", retry_after=1) from None
            raise

    def pool_of(self, model: ModelVersion) -> Pool:
        """Return the workers of a registered version."""
        return self._pools[model.name, model.version]

    def add(self, model: ModelVersion, pool: Pool) -> None:
        """
        Enter a version with its workers.

        :raise Conflict: if it is registered already.
        """
        self.registry = self.registry.register(model)
        self._pools[model.name, model.version] = pool

    def remove(self, name: str, version: str | None) -> tuple[ModelVersion, Pool]:
        """
        Take a version out and return it with its workers, which go on until they are retired.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        :raise InvalidModelVersion: if it is the default one of several.
        """
        self.registry, model = self.registry.unregister(name, version)
        return model, self._pools.pop((model.name, model.version))

    def forget(self, model: ModelVersion) -> Pool | None:
        """
        Take out this very version, the default one too.

        :return: Its workers, as `remove`; ``None`` if it was there no more: another with its name may be, and is left.
        """
        registry = self.registry
        if not any(registered is model for registered in registry):
            return None
        others = [other for other in registry.versions(model.name) if other is not model]
        if others and registry.resolve(model.name) is model:
            registry = registry.set_default(model.name, others[0].version)
        self.registry, _ = registry.unregister(model.name, model.version)
        return self._pools.pop((model.name, model.version))

    def __iter__(self) -> Iterator[tuple[ModelVersion, Pool]]:
        """Go through all versions with their workers."""
        for (name, version), pool in list(self._pools.items()):
            yield self.registry.resolve(name, version), pool
