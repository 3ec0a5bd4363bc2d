# SPDX-License-Identifier: Apache-2.0
"""
Decide which requests of a failed batch are retried, and in which groups.

A batch whose handler raised is split, so that in the end only the request at fault fails. The requests of a batch whose
worker died are retried one by one, which identifies a poison request. A request is not retried after it has killed
`MOST_DEATHS` workers, or after its client has received a part of the response.
"""

from __future__ import annotations

from twisted_serve.errors import WorkerFailed
from twisted_serve.scheduling.pending import PendingRequest, RetryBudget, RetryState
from twisted_serve.scheduling.quarantine import Quarantine

# How many workers a request may kill.
MOST_DEATHS = 2


class Retries:
    """
    The rules for retrying requests.

    :param isolate: Whether batches whose handler raised are split (``isolateFailures``).
    :param after_death: Whether requests of a worker that died are retried at another (``retryOnWorkerDeath``).
    :param quarantine: Gets the requests that have killed `MOST_DEATHS` workers.
    """

    def __init__(self, isolate: bool, after_death: bool, quarantine: Quarantine) -> None:
        self._isolate = isolate
        self._after_death = after_death
        self._quarantine = quarantine

    def failed(self, batch: list[PendingRequest], error: WorkerFailed) -> list[list[PendingRequest]]:
        """
        Return the groups of requests to retry after a handler raised; each group is a batch.

        Halving finds one faulty request among ``n`` with ``2 * log2(n)`` batches. The retry budget of a batch is twice
        that: if more than a few requests are at fault, the handler itself is broken.
        """
        retriable = [request for request in batch if not (request.done or request.streaming)]
        if not self._isolate or len(batch) == 1 or not retriable:
            return []
        budget = _budget_of(retriable) or RetryBudget(4 * (len(batch) - 1).bit_length())
        half = (len(retriable) + 1) // 2 if len(retriable) == len(batch) else len(retriable)
        groups = [group for group in (retriable[:half], retriable[half:]) if group]
        if budget.left < len(groups):
            return []
        budget.left -= len(groups)
        for request in retriable:
            request.retry_state = RetryState(error, _deaths_of(request), budget)
        return groups

    def died(
        self, batch: list[PendingRequest], error: WorkerFailed, now: float, blame: bool
    ) -> list[list[PendingRequest]]:
        """
        Return the groups of requests to retry after a worker died; each group is a batch.

        :param blame: Whether the requests may have killed the worker; false if the server ended it.
        """
        groups = []
        for request in batch:
            deaths = _deaths_of(request) + blame
            if request.done:
                continue
            if deaths >= MOST_DEATHS:
                self._quarantine.blame(request.job, now)
            elif self._after_death and not request.streaming:
                request.retry_state = RetryState(error, deaths)
                groups.append([request])
        return groups


def _deaths_of(request: PendingRequest) -> int:
    return 0 if request.retry_state is None else request.retry_state.deaths


def _budget_of(batch: list[PendingRequest]) -> RetryBudget | None:
    return None if batch[0].retry_state is None else batch[0].retry_state.budget
