# SPDX-License-Identifier: Apache-2.0
"""
Quarantine poison requests: those that have killed workers are refused for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from twisted_serve.wire.messages import Job

# Seconds that a request is refused: long enough for workers to serve others, short enough if they died for another
# reason.
QUARANTINE = 300.0
# A client that sends many different poison requests cannot fill the memory, and kills no faster than workers start.
MOST_REMEMBERED = 1024


class Quarantine:
    """
    The quarantined requests, as fingerprints of their inputs.

    Requests with equal inputs are considered equal: headers differ from one attempt to the next.

    :param seconds: How many seconds a request is refused.
    :param most: How many requests are remembered; the oldest are dropped.
    """

    def __init__(self, seconds: float = QUARANTINE, most: int = MOST_REMEMBERED) -> None:
        self._seconds = seconds
        self._most = most
        # The end of each quarantine, in seconds of the clock, oldest first.
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def blame(self, job: Job, now: float) -> None:
        """Quarantine ``job``; a job without inputs is exempt, as it equals too many others."""
        if job.parts:
            key = _fingerprint(job)
            self._until[key] = now + self._seconds
            self._until.move_to_end(key)
            if len(self._until) > self._most:
                self._until.popitem(last=False)

    def left(self, job: Job, now: float) -> float:
        """Return for how many more seconds ``job`` is refused; 0 if it is not."""
        while self._until and (first := next(iter(self._until.items())))[1] <= now:
            del self._until[first[0]]
        # No fingerprint is computed while the quarantine is empty.
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
    """Hash a piece with its length, so that different lists of pieces have different digests."""
    digest.update(b"%d:" % len(piece))
    digest.update(piece)
