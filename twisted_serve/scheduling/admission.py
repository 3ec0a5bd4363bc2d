# SPDX-License-Identifier: Apache-2.0
"""
Build the errors of requests that are refused admission.
"""

from __future__ import annotations

from math import ceil

from attrs import frozen

from twisted_serve.batching.queue import QueueFull
from twisted_serve.errors import ServiceUnavailable
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.scheduling.retries import MOST_DEATHS

# Seconds of ``Retry-After`` when the queue is full.
RETRY_AFTER = 1

_ADVICE = (
    "Please use scale workers API to add workers. If this is a sequence inference, please check "
    "if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


@frozen
class Unavailability:
    """
    Why there is no worker and none can be expected.

    :ivar why: A sentence for clients, or ``""``.
    :ivar reason: The failure of the last worker, if there was one.
    :ivar retry_after: Seconds after which there may be a worker.
    """

    why: str = ""
    reason: str | None = None
    retry_after: int | None = None


class RequestAdmission:
    """The errors for refused requests, which begin with TorchServe's texts (``docs/torchserve/rest_api.md`` §5.1)."""

    def __init__(self, model_name: str, model_version: str, observer: PoolObserver) -> None:
        self._observer = observer
        self._without_version = f'Model "{model_name}" has no worker to serve inference request. {_ADVICE}'
        self._with_version = (
            f'Model "{model_name}" Version {model_version}" has no worker to serve inference request. {_ADVICE}'
        )

    def no_worker(self, versioned: bool, unavailability: Unavailability) -> ServiceUnavailable:
        """Return the error when there is no worker: TorchServe's text, which clients may match, then the reason."""
        self._observer.refused("no_worker")
        error = ServiceUnavailable(self._text(versioned, unavailability.why), unavailability.retry_after)
        return error if unavailability.reason is None else error.because(unavailability.reason)

    def queue_full(self, versioned: bool, full: QueueFull, loading: bool) -> ServiceUnavailable:
        """Return the error when the queue is full."""
        self._observer.refused("queue_full")
        while_loading = " for a worker that is still loading" if loading else ""
        why = full.sentence.format(count=full.count, waiting=f"{full.count} waiting{while_loading}")
        return ServiceUnavailable(self._text(versioned, why), RETRY_AFTER)

    def too_late(self, seconds: float) -> ServiceUnavailable:
        """Return the error for a request whose response would come after its deadline."""
        self._observer.refused("too_late")
        return ServiceUnavailable(
            f"The request cannot be answered before its deadline: that takes about {seconds:.3f} seconds.",
            RETRY_AFTER,
        )

    def quarantined(self, seconds: float) -> ServiceUnavailable:
        """Return the error for a quarantined request."""
        self._observer.refused("quarantined")
        return ServiceUnavailable(
            f"This request has killed {MOST_DEATHS} workers; it is not tried again for {ceil(seconds)} seconds.",
            ceil(seconds),
        )

    def _text(self, versioned: bool, why: str) -> str:
        """Return TorchServe's full text followed by the reason for this refusal."""
        theirs = self._with_version if versioned else self._without_version
        return f"{theirs}. {why}" if why else theirs
