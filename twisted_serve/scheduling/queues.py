# SPDX-License-Identifier: Apache-2.0
"""
Choose the queue for a model's requests.
"""

from __future__ import annotations

from typing import TypeAlias

from twisted_serve.batching.queue import BatchQueue, ClosePolicy
from twisted_serve.batching.sequences import SequenceQueue
from twisted_serve.models.version import ModelSettings
from twisted_serve.scheduling.pending import PendingRequest
from twisted_serve.scheduling.sequence_headers import SequenceHeaders

#: The queue of a pool: in arrival order, or by sequence.
Queue: TypeAlias = "BatchQueue[PendingRequest] | SequenceQueue[PendingRequest]"


def make_queue(settings: ModelSettings, names: SequenceHeaders) -> Queue:
    """Return a new queue as a model's settings require."""
    delay = settings.max_batch_delay / 1000
    policy = settings.batch_policy
    if settings.continuous and policy is ClosePolicy.ADAPTIVE:
        # A late request joins the running batch, so waiting gains nothing, and one handler call says nothing about the
        # duration of a request.
        policy = ClosePolicy.EAGER
    if settings.sequences is None:
        return BatchQueue(settings.job_queue_size, settings.batch_size, delay, policy)
    return SequenceQueue(
        settings.sequences,
        lambda request: names.sequence_of(request.job),
        settings.batch_size,
        delay if policy is ClosePolicy.WINDOW else 0.0,
        # With continuous batching the handler keeps the state of each sequence, and is told where one begins.
        (lambda request: names.begins(request.job)) if settings.continuous else None,
    )
