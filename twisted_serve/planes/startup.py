# SPDX-License-Identifier: Apache-2.0
"""
Describe what became of the models that a server was to load at its start.
"""

from __future__ import annotations

from attrs import frozen

from twisted_serve.errors import ServeError

# So many failures are told in one line.
_SHOWN = 10


@frozen
class StartupFailure:
    """
    A start-up model that is not served.

    :ivar name: The name that it was to have, or was registered as; ``None`` if only its archive knows.
    :ivar url: Where its archive was looked for.
    :ivar reason: What went wrong.
    :ivar registered: Whether it is registered all the same, and its workers are started again.
    """

    name: str | None
    url: str
    reason: str
    registered: bool = False

    def __str__(self) -> str:
        """Write the failure as one part of a line."""
        named = self.url if self.name in (None, self.url) else f"{self.name} ({self.url})"
        return f"{named}: {self.reason}"


@frozen
class StartupOutcome:
    """
    What became of the start-up models.

    :ivar models: How many there were to load.
    :ivar failures: Those that failed, in the order of the list.
    """

    models: int = 0
    failures: tuple[StartupFailure, ...] = ()

    def problem(self) -> str | None:
        """Return one line on which of how many models failed, and why; ``None`` if none did."""
        if not self.failures:
            return None
        parts = [str(failure) for failure in self.failures[:_SHOWN]]
        if len(self.failures) > _SHOWN:
            parts.append(f"and {len(self.failures) - _SHOWN} more")
        return f"{len(self.failures)} of {self.models} start-up models failed: {'; '.join(parts)}"


def reason_of(error: ServeError) -> str:
    """Write an error with its reason, in one line."""
    told = error.reason is None or error.reason in error.message
    text = error.message if told else f"{error.message} ({error.reason})"
    return " ".join(text.split())
