# SPDX-License-Identifier: Apache-2.0
"""
Keep the registered model versions, each with its pool of workers.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted_serve.errors import ModelNotFound, ServiceUnavailable
from twisted_serve.models.registry import Registry
from twisted_serve.models.version import ModelVersion
from twisted_serve.scheduling.pool import Pool


class Catalogue:
    """
    The model versions that can answer requests now.

    :ivar registry: The registered versions; replaced as a whole by each change.
    :ivar starting: Whether start-up models are still being registered, so that an unknown model may appear soon.
    :ivar missing: The start-up models that could not be registered: name to location. Registering a model with the
        same name or location removes the entry.
    :ivar stopping: Whether the server is shutting down.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self.starting = False
        self.missing: dict[str, str] = {}
        self.stopping = False
        self._pools: dict[tuple[str, str], Pool] = {}

    def resolve(self, name: str, version: str | None) -> ModelVersion:
        """
        Return a version; ``None`` selects the default one.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        :raise ServiceUnavailable: if the model is unknown while start-up models are still being registered.
        """
        try:
            return self.registry.resolve(name, version)
        except ModelNotFound:
            if self.starting:
                raise ServiceUnavailable("The server is starting and still loads models.", retry_after=1) from None
            raise

    def has(self, model: ModelVersion) -> bool:
        """Return whether exactly this version is registered."""
        return any(registered is model for registered in self.registry)

    def pool_of(self, model: ModelVersion) -> Pool:
        """Return the worker pool of a registered version."""
        return self._pools[model.name, model.version]

    def add(self, model: ModelVersion, pool: Pool) -> None:
        """
        Register a version with its worker pool.

        :raise Conflict: if the version is already registered.
        """
        self.registry = self.registry.register(model)
        self._pools[model.name, model.version] = pool

    def remove(self, name: str, version: str | None) -> tuple[ModelVersion, Pool]:
        """
        Remove a version and return it with its worker pool, which runs until it is retired.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        :raise InvalidModelVersion: if the version is the default one of several.
        """
        self.registry, model = self.registry.unregister(name, version)
        return model, self._pools.pop((model.name, model.version))

    def forget(self, model: ModelVersion) -> Pool | None:
        """
        Remove exactly this version, even if it is the default one.

        :return: Its worker pool, as in `remove`; ``None`` if the version was no longer registered. Another version
            registered under the same name since then is kept.
        """
        registry = self.registry
        if not self.has(model):
            return None
        others = [other for other in registry.versions(model.name) if other is not model]
        if others and registry.resolve(model.name) is model:
            registry = registry.set_default(model.name, others[0].version)
        self.registry, _ = registry.unregister(model.name, model.version)
        return self._pools.pop((model.name, model.version))

    def __iter__(self) -> Iterator[tuple[ModelVersion, Pool]]:
        """Iterate over all versions with their worker pools."""
        for (name, version), pool in list(self._pools.items()):
            yield self.registry.resolve(name, version), pool
