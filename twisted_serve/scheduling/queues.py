# SPDX-License-Identifier: Apache-2.0
"""
This module implements the choice of the queue that a model's requests wait in.
"""

from __future__ import annotations

from typing import TypeAlias

from twisted_serve.batching.queue import BatchQueue, ClosePolicy
from twisted_serve.batching.sequences import SequenceQueue
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.pending import PendingRequest
from twisted_serve.scheduling.sequence_headers import SequenceHeaders

#: Where requests wait.
Queue: TypeAlias = "BatchQueue[PendingRequest] | SequenceQueue[PendingRequest]"


def make_queue(settings: ModelSettings, names: SequenceHeaders) -> Queue:
    """Make the queue that a model's requests wait in."""
    delay = settings.max_batch_delay / 1000
    policy = settings.batch_policy
    if settings.continuous and policy is ClosePolicy.ADAPTIVE:
        # Who comes late joins the batch: there is nothing to wait for, and a call says nothing about a request's time.
        policy = ClosePolicy.EAGER
    if settings.sequences is None:
        return BatchQueue(settings.job_queue_size, settings.batch_size, delay, policy)
    return SequenceQueue(
        settings.sequences,
        lambda ticket: names.sequence_of(ticket.job),
        settings.batch_size,
        delay if policy is ClosePolicy.WINDOW else 0.0,
        # A handler that is called again and again keeps its own state of each sequence, and is told where one begins.
        (lambda ticket: names.begins(ticket.job)) if settings.continuous else None,
    )
