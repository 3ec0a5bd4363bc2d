# SPDX-License-Identifier: Apache-2.0
"""
This module implements the memory for requests which have killed workers, and are not let near another for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from twisted_serve.wire.messages import Job

# Seconds that a request is refused: enough for workers to serve others, and soon over if they died of something else.
QUARANTINE = 300.0
# Somebody who tries one deadly request after the other fills no memory, and kills no faster than workers start.
MOST_REMEMBERED = 1024


class Quarantine:
    """
    What must not be tried again yet.

    Requests are alike when their inputs are: headers differ from one attempt to the next.

    :param seconds: For how long a request is refused.
    :param most: How many are remembered; the newest count.
    """

    def __init__(self, seconds: float = QUARANTINE, most: int = MOST_REMEMBERED) -> None:
        self._seconds = seconds
        self._most = most
        # Until when, oldest first.
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def blame(self, job: Job, now: float) -> None:
        """Refuse what is like ``job`` from now on; a job without any input is like too many others."""
        if job.parts:
            key = _fingerprint(job)
            self._until[key] = now + self._seconds
            self._until.move_to_end(key)
            if len(self._until) > self._most:
                self._until.popitem(last=False)

    def left(self, job: Job, now: float) -> float:
        """Say for how many seconds ``job`` is still to be refused; 0 for not at all."""
        while self._until and (first := next(iter(self._until.items())))[1] <= now:
            del self._until[first[0]]
        # Nothing is computed for a request as long as nothing has happened.
        return max(0.0, self._until.get(_fingerprint(job), now) - now) if self._until else 0.0


def _fingerprint(job: Job) -> bytes:
    digest = blake2b(digest_size=16)
    words = [job.headers.get("url_path", ""), job.headers.get("explain", "")]
    for part in job.parts:
        words += (part.name, part.content_type)
        _add(digest, part.value)
    for word in words:
        _add(digest, word.encode("utf-8", "surrogatepass"))
    return digest.digest()


def _add(digest: blake2b, piece: bytes) -> None:
    """Add a piece such that no two lists of pieces are alike."""
    digest.update(b"%d:" % len(piece))
    digest.update(piece)
