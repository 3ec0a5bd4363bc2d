# SPDX-License-Identifier: Apache-2.0
"""
Describe the outcome of loading the start-up models.
"""

from __future__ import annotations

from attrs import frozen

from twisted_serve.errors import ServeError

# The most failures that one line lists.
_SHOWN = 10


@frozen
class StartupFailure:
    """
    A start-up model that is not served.

    :ivar name: Its configured or registered name; ``None`` if only the archive names it.
    :ivar url: The location of its archive.
    :ivar reason: The reason of the failure.
    :ivar registered: Whether the model is nevertheless registered and its workers are being restarted.
    """

    name: str | None
    url: str
    reason: str
    registered: bool = False

    def __str__(self) -> str:
        """Return the failure as part of a log line."""
        named = self.url if self.name in (None, self.url) else f"{self.name} ({self.url})"
        return f"{named}: {self.reason}"


@frozen
class StartupOutcome:
    """
    The outcome of loading the start-up models.

    :ivar models: The number of models to load.
    :ivar failures: The failures, in the order of the start-up list.
    """

    models: int = 0
    failures: tuple[StartupFailure, ...] = ()

    def problem(self) -> str | None:
        """Return one line that lists the failed models with reasons; ``None`` if none failed."""
        if not self.failures:
            return None
        parts = [str(failure) for failure in self.failures[:_SHOWN]]
        if len(self.failures) > _SHOWN:
            parts.append(f"and {len(self.failures) - _SHOWN} more")
        return f"{len(self.failures)} of {self.models} start-up models failed: {'; '.join(parts)}"


def reason_of(error: ServeError) -> str:
    """Return an error with its reason on one line."""
    included = error.reason is None or error.reason in error.message
    text = error.message if included else f"{error.message} ({error.reason})"
    return " ".join(text.split())
