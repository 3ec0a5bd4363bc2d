# SPDX-License-Identifier: Apache-2.0
"""
Read and write the headers that assign a request to a sequence (``docs/torchserve/rest_api.md`` §7).
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from attrs import frozen
from msgspec.structs import replace

from twisted_serve.wire.messages import Item, Job


@frozen
class SequenceHeaders:
    """
    The names of the sequence headers (``ts_header_key_sequence_…``).

    :ivar id: The header with the name of the sequence; a client sends it with each request.
    :ivar start: The header that is ``true`` for the handler if the client named no sequence.
    :ivar end: The header of a response that names ended sequences, separated by ``;`` (continuous batching).
    """

    id: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"
    end: str = "ts_request_sequence_end"

    def named(self, job: Job) -> Job:
        """Return the job with a sequence: its own, or a new one if the client named none."""
        if self.sequence_of(job):
            return job
        return replace(job, headers={**job.headers, self.id: f"ts-seq-{uuid4()}", self.start: "true"})

    def sequence_of(self, job: Job) -> str:
        """Return the name of a job's sequence, or ``""``."""
        return _get(job.headers, self.id)

    def begins(self, job: Job) -> bool:
        """Return whether a job is marked as the first of its sequence."""
        return _get(job.headers, self.start).lower() == "true"

    def ended_by(self, item: Item) -> list[str]:
        """Return the names of the sequences that a handler's response ends."""
        return [name for each in _get(item.headers, self.end).split(";") if (name := each.strip())]


def _get(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a header, or ``""``."""
    if headers.get(name):
        return headers[name]
    # A proxy may have changed the case of the name.
    wanted = name.lower()
    return next((value for spelled, value in headers.items() if spelled.lower() == wanted), "")
