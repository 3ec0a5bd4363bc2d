# SPDX-License-Identifier: Apache-2.0
"""
This module implements prediction and the questions about the server's health.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.timing import Timing
from twisted_serve.models.version import ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.scheduling.pending import OnChunk
from twisted_serve.scheduling.status import Ready
from twisted_serve.wire.messages import Item, Job


class InferencePlane:
    """What clients of the inference listener can ask for."""

    def __init__(self, catalogue: Catalogue, metrics: ServerMetrics) -> None:
        self._catalogue = catalogue
        self._metrics = metrics

    def predict(
        self,
        name: str,
        version: str | None,
        job: Job,
        on_chunk: OnChunk,
        deadline: float | None = None,
        timing: Timing | None = None,
    ) -> Deferred[Item]:
        """
        Have a job answered by a worker.

        :param on_chunk: Called with each intermediate answer, in order, and whom to pause while the client takes
            no more.
        :param deadline: When the client stops waiting, in seconds of the clock; ``None`` if it did not say.
        :param timing: Its moments, to be filled in.
        :return: Fires with the (last) answer; cancelling it gives the job up.
        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        """
        model = self._catalogue.resolve(name, version)
        self._metrics.inference_requested(name, version or "default")
        if timing is not None:
            timing.model, timing.version = model.name, model.version
        pool = self._catalogue.pool_of(model)
        return pool.submit(job, on_chunk, deadline, versioned=version is not None, timing=timing)

    def find(self, name: str, version: str | None) -> ModelVersion:
        """
        Find a version, the default one for ``None``.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        return self._catalogue.resolve(name, version)

    def versions(self, name: str) -> list[str]:
        """
        List a model's versions in the order of their registration.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        self._catalogue.resolve(name, None)
        return [model.version for model in self._catalogue.registry.versions(name)]

    def names(self) -> list[str]:
        """List the models by name; the functions of workflows are none."""
        return sorted({model.name for model in self._catalogue.registry if model.url})

    def only_startup_model(self) -> str | None:
        """Return the name of the one start-up model, ``None`` if there is none or several."""
        names = {model.name for model in self._catalogue.registry if model.loaded_at_startup}
        return names.pop() if len(names) == 1 else None

    def model_ready(self, name: str, version: str | None) -> bool:
        """
        Say whether a version can answer now: its minimum of workers is loaded, and it is one at least.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        pool = self._catalogue.pool_of(self._catalogue.resolve(name, version))
        return pool.ready() and any(isinstance(worker.status, Ready) for worker in pool.status().workers)

    def healthy(self) -> bool:
        """
        Say whether every model has workers which run or may come back (``docs/torchserve/rest_api.md`` §4.1).

        Not before the start-up models are registered.
        """
        if self._catalogue.starting or self._catalogue.stopping:
            return False
        registry = self._catalogue.registry
        return all(pool.healthy() for model, pool in self._catalogue if registry.resolve(model.name, None) is model)

    def ready(self) -> bool:
        """Return whether every start-up model has its minimum of workers, loaded, and none is missing."""
        if self._catalogue.starting or self._catalogue.stopping or self._catalogue.missing:
            return False
        return all(pool.ready() for model, pool in self._catalogue if model.loaded_at_startup)
