# SPDX-License-Identifier: Apache-2.0
"""
Run predictions and report health and readiness, as far as the sender of a request may see.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.timing import Timing
from twisted_serve.models.version import ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.senders import Sender
from twisted_serve.scheduling.pending import OnChunk, PendingRequest, Recipient
from twisted_serve.scheduling.pool import Pool
from twisted_serve.scheduling.status import Ready
from twisted_serve.wire.messages import Item, Job


class SharedInference(Protocol):
    """
    The inference plane before it is known which sender a request has: it tells nothing of a single model.

    Transports have nothing else, hence no route and no method can forget to ask for the sender.

    :ivar stopping: Whether the server is shutting down.
    """

    def seen_by(self, sender: Sender | None) -> InferencePlane:
        """Return the plane for the models that a sender may see; all for ``None``, a sender without a named key."""

    @property
    def stopping(self) -> bool:
        """Whether the server is shutting down."""

    def healthy(self) -> bool:
        """Return whether every model has workers that run or may recover."""

    def ready(self) -> bool:
        """Return whether no start-up model is missing and each has its minimum of workers loaded."""


class InferencePlane:
    """The use cases of the inference listener."""

    def __init__(self, catalogue: Catalogue, metrics: ServerMetrics) -> None:
        self._catalogue = catalogue
        self._metrics = metrics

    def seen_by(self, sender: Sender | None) -> InferencePlane:
        """Return the plane for the models that a sender may see; all for ``None``, a sender without a named key."""
        return self if sender is None else _SeenInference(self._catalogue, self._metrics, sender)

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
        Submit a job to a worker.

        :param on_chunk: Called in order with each intermediate response and the producer to pause while the client
            is not reading.
        :param deadline: The client's deadline in seconds of the clock; ``None`` if the client sent none.
        :param timing: Filled with the timestamps of the request.
        :return: A Deferred that fires with the (last) response; cancelling it cancels the job.
        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        """
        pool = self._pool_for(name, version, timing)
        return pool.submit(job, on_chunk, deadline, versioned=version is not None, timing=timing)

    def enter(
        self, name: str, version: str | None, job: Job, recipient: Recipient, deadline: float | None, timing: Timing
    ) -> PendingRequest:
        """
        Submit a job to a worker, as `predict` does, without a Deferred.

        :param recipient: Receives the response, or the error in place of one.
        :return: The request, to be abandoned when the client has disconnected.
        :raise ServeError: as `predict`, and if no worker can take the job.
        """
        pool = self._pool_for(name, version, timing)
        return pool.enter(job, recipient, deadline, version is not None, timing)

    def _pool_for(self, name: str, version: str | None, timing: Timing | None) -> Pool:
        """Return the pool that answers a request, which is counted."""
        model = self._catalogue.resolve(name, version)
        self._metrics.inference_requested(name, version or "default")
        if timing is not None:
            timing.model, timing.version = model.name, model.version
        return self._catalogue.pool_of(model)

    def find(self, name: str, version: str | None) -> ModelVersion:
        """
        Return a version; ``None`` selects the default one.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        return self._catalogue.resolve(name, version)

    def versions(self, name: str) -> list[str]:
        """
        Return a model's versions in order of registration.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        self._catalogue.resolve(name, None)
        return [model.version for model in self._catalogue.registry.versions(name)]

    def names(self) -> list[str]:
        """Return the sorted names of all models, without the functions of workflows."""
        return sorted({model.name for model in self._catalogue.registry if model.url})

    def only_startup_model(self) -> str | None:
        """Return the name of the only start-up model; ``None`` if there are none or several."""
        names = {model.name for model in self._catalogue.registry if model.loaded_at_startup}
        return names.pop() if len(names) == 1 else None

    def model_ready(self, name: str, version: str | None) -> bool:
        """
        Return whether a version can answer now: its minimum of workers, and at least one, is loaded.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        pool = self._catalogue.pool_of(self._catalogue.resolve(name, version))
        return pool.ready() and any(isinstance(worker.status, Ready) for worker in pool.status().workers)

    @property
    def stopping(self) -> bool:
        """Whether the server is shutting down."""
        return self._catalogue.stopping

    def healthy(self) -> bool:
        """
        Return whether every model has workers that run or may recover (``docs/torchserve/rest_api.md`` §4.1).

        ``False`` until the start-up models are registered.
        """
        if self._catalogue.starting or self._catalogue.stopping:
            return False
        registry = self._catalogue.registry
        return all(pool.healthy() for model, pool in self._catalogue if registry.resolve(model.name, None) is model)

    def ready(self) -> bool:
        """Return whether no start-up model is missing and each has its minimum of workers loaded."""
        if self._catalogue.starting or self._catalogue.stopping or self._catalogue.missing:
            return False
        return all(pool.ready() for model, pool in self._catalogue if model.loaded_at_startup)


class _SeenInference(InferencePlane):
    """
    The plane as the sender with a named key sees it.

    A model that the key does not open is refused before it is looked up, so that nothing tells whether there is one;
    the methods raise `InsufficientScope` then. The state of the server as a whole is no secret.
    """

    def __init__(self, catalogue: Catalogue, metrics: ServerMetrics, sender: Sender) -> None:
        super().__init__(catalogue, metrics)
        self._sender = sender

    def predict(
        self,
        name: str,
        version: str | None,
        job: Job,
        on_chunk: OnChunk,
        deadline: float | None = None,
        timing: Timing | None = None,
    ) -> Deferred[Item]:
        self._sender.require(name)
        return super().predict(name, version, job, on_chunk, deadline, timing)

    def enter(
        self, name: str, version: str | None, job: Job, recipient: Recipient, deadline: float | None, timing: Timing
    ) -> PendingRequest:
        self._sender.require(name)
        return super().enter(name, version, job, recipient, deadline, timing)

    def find(self, name: str, version: str | None) -> ModelVersion:
        self._sender.require(name)
        return super().find(name, version)

    def versions(self, name: str) -> list[str]:
        self._sender.require(name)
        return super().versions(name)

    def names(self) -> list[str]:
        return [name for name in super().names() if self._sender.sees(name)]

    def only_startup_model(self) -> str | None:
        name = super().only_startup_model()
        return name if name is not None and self._sender.sees(name) else None

    def model_ready(self, name: str, version: str | None) -> bool:
        self._sender.require(name)
        return super().model_ready(name, version)
