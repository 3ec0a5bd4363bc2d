# SPDX-License-Identifier: Apache-2.0
"""
Hold the timestamps of one prediction, the source of metrics, ``Server-Timing`` and traces.
"""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Timing:
    """
    The timestamps of one prediction, in seconds of the clock; ``None`` for those not reached yet.

    :ivar received: When the whole request had been received.
    :ivar versioned: Whether the client named the version of the model.
    :ivar queued: When the request was queued.
    :ivar sent: When the request was sent to a worker; the latest time if it was sent more than once.
    :ivar answered: When the (last part of the) worker's response arrived.
    :ivar model: The name of the model the request was resolved to.
    :ivar version: The version of that model.
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
        """The seconds the request was queued, or ``None``."""
        return None if self.queued is None or self.sent is None else self.sent - self.queued

    @property
    def worked(self) -> float | None:
        """The seconds the worker took, or ``None``."""
        return None if self.sent is None or self.answered is None else self.answered - self.sent

    def server_timing(self, now: float) -> str:
        """Return the value of a ``Server-Timing`` header with all durations known at ``now``, in milliseconds."""
        known = {"queue": self.waited, "handler": self.worked, "total": now - self.received}
        return ", ".join(f"{name};dur={value * 1000:.3f}" for name, value in known.items() if value is not None)
