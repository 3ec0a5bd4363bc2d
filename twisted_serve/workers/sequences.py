# SPDX-License-Identifier: Apache-2.0
"""
This module implements how a request says which sequence it belongs to (``spec/rest_api.md`` §7).
"""

from __future__ import annotations

from uuid import uuid4

from attrs import frozen
from msgspec.structs import replace

from twisted_serve.wire.messages import Job


@frozen
class SequenceHeaders:
    """
    The names of the headers (``ts_header_key_sequence_…``).

    :ivar id: Names the sequence; a client sends it with each request.
    :ivar start: Says ``true`` to the handler of a model whose client named no sequence.
    """

    id: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"

    def named(self, job: Job) -> Job:
        """Return the job of a sequence, a new one if its client named none."""
        if self.sequence_of(job):
            return job
        return replace(job, headers={**job.headers, self.id: f"ts-seq-{uuid4()}", self.start: "true"})

    def sequence_of(self, job: Job) -> str:
        """Return the name of a job's sequence, ``""`` if it has none."""
        if job.headers.get(self.id):
            return job.headers[self.id]
        # A proxy may have spelled the name in its own way.
        wanted = self.id.lower()
        return next((value for name, value in job.headers.items() if name.lower() == wanted), "")
