# SPDX-License-Identifier: Apache-2.0
"""
This module implements how a request says which sequence it belongs to (``docs/torchserve/rest_api.md`` §7).
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
    The names of the headers (``ts_header_key_sequence_…``).

    :ivar id: Names the sequence; a client sends it with each request.
    :ivar start: Says ``true`` to the handler of a model whose client named no sequence.
    :ivar end: With continuous batching: in an answer, names the sequences that are over, with ``;`` between them.
    """

    id: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"
    end: str = "ts_request_sequence_end"

    def named(self, job: Job) -> Job:
        """Return the job of a sequence, a new one if its client named none."""
        if self.sequence_of(job):
            return job
        return replace(job, headers={**job.headers, self.id: f"ts-seq-{uuid4()}", self.start: "true"})

    def sequence_of(self, job: Job) -> str:
        """Return the name of a job's sequence, ``""`` if it has none."""
        return _get(job.headers, self.id)

    def begins(self, job: Job) -> bool:
        """Return whether a job says that it is the first of its sequence."""
        return _get(job.headers, self.start).lower() == "true"

    def ended_by(self, item: Item) -> list[str]:
        """List the sequences that a handler's answer ends."""
        return [name for each in _get(item.headers, self.end).split(";") if (name := each.strip())]


def _get(headers: Mapping[str, str], name: str) -> str:
    """Return a header, ``""`` if there is none."""
    if headers.get(name):
        return headers[name]
    # A proxy may have spelled the name in its own way.
    wanted = name.lower()
    return next((value for spelled, value in headers.items() if spelled.lower() == wanted), "")
