# SPDX-License-Identifier: Apache-2.0
"""
Define the events of a server, and the base class of observers.

No event holds a secret: keys have their public ids.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from attrs import frozen

from twisted_serve.interfaces.authorization import TokenKind

__all__ = [
    "Event",
    "KeyExpired",
    "KeyExpiring",
    "KeyRotated",
    "ModelFailed",
    "ModelLoaded",
    "Notify",
    "ServerObserver",
    "WorkerDied",
    "ignore",
]


@frozen
class ModelLoaded:
    """All workers of a version with which it was registered have loaded it."""

    model: str
    version: str


@frozen
class ModelFailed:
    """
    A model of the start-up list could not be registered, or a worker of a version that was just registered has failed
    to load it.

    :ivar model: Its name; of an archive that could not be read, the name of the file.
    :ivar version: ``None`` if it could not be registered.
    """

    model: str
    version: str | None
    reason: str


@frozen
class WorkerDied:
    """
    A worker has ended, or is being ended, because of a failure; it will be started again.

    :ivar worker: Its id, as in the description of the model.
    """

    model: str
    version: str
    worker: str
    reason: str


@frozen
class KeyExpiring:
    """
    A key will expire soon: the setting ``token_warning_min`` says how long before.

    :ivar key_id: The public id of the key.
    :ivar seconds_left: Seconds until it is refused.
    """

    kind: TokenKind
    key_id: str
    expires: datetime
    seconds_left: float


@frozen
class KeyExpired:
    """
    A key has expired; it has been refused since then.

    :ivar key_id: The public id of the key.
    """

    kind: TokenKind
    key_id: str
    expires: datetime


@frozen
class KeyRotated:
    """
    A key was replaced: the old one is refused, the new one is in the key file.

    :ivar old_id: The public id of the old key.
    :ivar key_id: The public id of the new one.
    :ivar by: The origin of the request for it, as in the log.
    """

    kind: TokenKind
    old_id: str
    key_id: str
    expires: datetime | None
    by: str


#: Any event.
Event: TypeAlias = "ModelLoaded | ModelFailed | WorkerDied | KeyExpiring | KeyExpired | KeyRotated"

#: Takes an event.
Notify: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with an event."""


class ServerObserver:
    """
    Observes a server; this base class ignores all events.

    The methods are called in the reactor's thread, in the order of the events and soon after them, when the server has
    finished what led to them; so an observer may call the server.  What an observer raises is logged; a Deferred or a
    coroutine that it returns is not waited for, and its failure is logged.
    """

    def model_loaded(self, event: ModelLoaded) -> object:
        """Handle that the workers of a model have loaded it."""

    def model_failed(self, event: ModelFailed) -> object:
        """Handle that a model could not be loaded."""

    def worker_died(self, event: WorkerDied) -> object:
        """Handle that a worker was lost."""

    def key_expiring(self, event: KeyExpiring) -> object:
        """Handle that a key will expire soon."""

    def key_expired(self, event: KeyExpired) -> object:
        """Handle that a key has expired."""

    def key_rotated(self, event: KeyRotated) -> object:
        """Handle that a key was replaced."""
