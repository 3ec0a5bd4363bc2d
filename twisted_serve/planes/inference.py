# SPDX-License-Identifier: Apache-2.0
"""
This module implements prediction and the questions about the server's health.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.planes.catalogue import Catalogue
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
        on_chunk: Callable[[Item], None],
        deadline: float | None = None,
    ) -> Deferred[Item]:
        """
        Have a job answered by a worker.

        :param on_chunk: Called with each intermediate answer, in order.
        :param deadline: When the client stops waiting, in seconds of the clock; ``None`` if it did not say.
        :return: Fires with the (last) answer; cancelling it gives the job up.
        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        """
        model = self._catalogue.resolve(name, version)
        self._metrics.inference_requested(name, version or "default")
        return self._catalogue.pool_of(model).submit(job, on_chunk, deadline, versioned=version is not None)

    def healthy(self) -> bool:
        """
        Say whether every model has workers which run or may come back (``spec/rest_api.md`` §4.1).

        Not before the start-up models are registered.
        """
        if self._catalogue.starting or self._catalogue.stopping:
            return False
        registry = self._catalogue.registry
        return all(pool.healthy() for model, pool in self._catalogue if registry.resolve(model.name, None) is model)

    def ready(self) -> bool:
        """Say whether every start-up model has its minimum of workers, loaded."""
        if self._catalogue.starting or self._catalogue.stopping:
            return False
        return all(pool.ready() for model, pool in self._catalogue if model.loaded_at_startup)
