# SPDX-License-Identifier: Apache-2.0
"""
Build what a server with named keys needs (``token_store``).
"""

from __future__ import annotations

from datetime import timedelta

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.assembly.dependencies import Dependencies
from twisted_serve.auth.named.live import NamedKeys
from twisted_serve.auth.named.store import KeyStore, StoreError
from twisted_serve.config.options import ServerOptions
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.planes.access import Access, TokenAccess
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.keys import KeysPlane
from twisted_serve.planes.live_keys import LiveKeys
from twisted_serve.planes.workflows import WorkflowPlane

_log = Logger("twisted_serve.server")

#: In seconds, how often the file of named keys is looked at.
LOOK_INTERVAL = 1.0


def keys_plane_of(
    options: ServerOptions,
    dependencies: Dependencies,
    live_keys: LiveKeys | None,
    access: Access,
    catalogue: Catalogue,
    workflows: WorkflowPlane,
) -> KeysPlane | None:
    """Return the use cases of named keys; ``None`` without a store of them."""
    if live_keys is None or not isinstance(access, TokenAccess):
        return None

    def names() -> set[str]:
        return {*(model.name for model in catalogue.registry), *workflows.names}

    overlap = timedelta(seconds=options.token_overlap_sec)
    return KeysPlane(live_keys, dependencies.now, dependencies.entropy, access.audit_log, names, overlap)


class StoreWatch(Service):
    """Reads the named keys again when another server has changed their file."""

    def __init__(self, live_keys: LiveKeys, clock: IReactorTime) -> None:
        self.setName("named keys")
        self._loop = LoopingCall(live_keys.look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Look at the file each second."""
        super().startService()
        self._loop.start(LOOK_INTERVAL, now=False).addErrback(self._ended)

    def stopService(self) -> None:
        """Look no longer."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _ended(self, failure: Failure) -> None:
        _log.failure("The file of named keys is not looked at any longer", failure)


def live_keys_of(clock: IReactorTime, options: ServerOptions, defer_to_thread: DeferToThread) -> LiveKeys | None:
    """
    Read the named keys; ``None`` without a store of them (``token_store``).

    :raise ValueError: when the file cannot be used.
    """
    if options.token_store is None:
        return None
    try:
        return LiveKeys(KeyStore(options.token_store), NamedKeys(clock.seconds), defer_to_thread)
    except StoreError as e:
        raise ValueError(f"token_store: {e}") from e
