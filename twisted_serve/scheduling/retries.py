# SPDX-License-Identifier: Apache-2.0
"""
This module implements which requests of a batch that came to grief are tried again, and in what company.

A batch whose handler raised is split, so that in the end only the culprit fails.
A batch whose worker died is tried again one by one, so that a culprit dies alone
and is known; nothing is tried after it has killed two workers, or after its
client has seen a part of the answer.
"""

from __future__ import annotations

from twisted_serve.errors import WorkerFailed
from twisted_serve.scheduling.pending import PendingRequest, RetryBudget, RetryState
from twisted_serve.scheduling.quarantine import Quarantine

# How many workers a request may kill.
MOST_DEATHS = 2


class Retries:
    """
    The rules of trying again.

    :param isolate: Whether batches which failed are split (``isolateFailures``).
    :param after_death: Whether what was at a worker that died is given to another (``retryOnWorkerDeath``).
    """

    def __init__(self, isolate: bool, after_death: bool, quarantine: Quarantine) -> None:
        self._isolate = isolate
        self._after_death = after_death
        self._quarantine = quarantine

    def failed(self, batch: list[PendingRequest], error: WorkerFailed) -> list[list[PendingRequest]]:
        """
        Say which requests of a batch, whose handler raised, are to be tried again, batch by batch.

        Halving finds one culprit among ``n`` in two batches for each doubling.  What is
        spent on a batch is limited to twice that: if more than a few are culprits, it is
        the handler that is broken.
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
        Say which requests of a batch, whose worker died, are to be tried again, batch by batch.

        :param blame: Whether the requests can have been the reason: not if we ended the worker ourselves.
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
