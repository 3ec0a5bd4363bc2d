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
        innocent = [ticket for ticket in batch if not (ticket.done or ticket.streaming)]
        if not self._isolate or len(batch) == 1 or not innocent:
            return []
        allowance = _allowance_of(innocent) or RetryBudget(4 * (len(batch) - 1).bit_length())
        half = (len(innocent) + 1) // 2 if len(innocent) == len(batch) else len(innocent)
        groups = [group for group in (innocent[:half], innocent[half:]) if group]
        if allowance.left < len(groups):
            return []
        allowance.left -= len(groups)
        for ticket in innocent:
            ticket.setback = RetryState(error, _deaths_of(ticket), allowance)
        return groups

    def died(
        self, batch: list[PendingRequest], error: WorkerFailed, now: float, blame: bool
    ) -> list[list[PendingRequest]]:
        """
        Return the groups of requests to retry after a worker died; each group is a batch.

        :param blame: Whether the requests may have killed the worker; false if the server ended it.
        """
        groups = []
        for ticket in batch:
            deaths = _deaths_of(ticket) + blame
            if ticket.done:
                continue
            if deaths >= MOST_DEATHS:
                self._quarantine.blame(ticket.job, now)
            elif self._after_death and not ticket.streaming:
                ticket.setback = RetryState(error, deaths)
                groups.append([ticket])
        return groups


def _deaths_of(ticket: PendingRequest) -> int:
    return 0 if ticket.setback is None else ticket.setback.deaths


def _allowance_of(batch: list[PendingRequest]) -> RetryBudget | None:
    return None if batch[0].setback is None else batch[0].setback.allowance
