# SPDX-License-Identifier: Apache-2.0
"""
This module implements the moments of one prediction: what metrics, ``Server-Timing`` and traces are made of.
"""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Timing:
    """
    The moments of one prediction, in seconds of the clock; ``None`` while they have not come.

    :ivar received: The whole request is there.
    :ivar versioned: Whether its client named the version of the model.
    :ivar queued: It waits for a worker.
    :ivar sent: It was sent to one; the last one, if it was sent to several.
    :ivar answered: The worker's (last) answer is there.
    :ivar model: The name of the model which was found for it; ``version``: that model's version.
    """

    received: float
    versioned: bool = False
    queued: float | None = None
    sent: float | None = None
    answered: float | None = None
    model: str | None = None
    version: str | None = None

    @property
    def waited(self) -> float | None:
        """Return the seconds that it waited for a worker."""
        return None if self.queued is None or self.sent is None else self.sent - self.queued

    @property
    def worked(self) -> float | None:
        """Return the seconds that the worker took."""
        return None if self.sent is None or self.answered is None else self.answered - self.sent

    def server_timing(self, now: float) -> str:
        """Write what is known by ``now`` as the value of a ``Server-Timing`` header, in milliseconds."""
        known = {"queue": self.waited, "handler": self.worked, "total": now - self.received}
        return ", ".join(f"{name};dur={value * 1000:.3f}" for name, value in known.items() if value is not None)
