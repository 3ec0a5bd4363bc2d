# SPDX-License-Identifier: Apache-2.0
"""
Remove the key file and the work directory of a server with it, however its process ends.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger

from twisted_serve.archives.orphans import WorkDirectory, remove_orphans
from twisted_serve.auth.key_file import KeyFile
from twisted_serve.eventloop.threads import DeferToThread

_log = Logger("twisted_serve.server")


class _Removal(Service):
    """
    Call a function when the service is stopped, and at the exit of the process.

    A program may end by ``sys.exit`` or an exception, without stopping its reactor or its services.
    """

    def __init__(self, name: str, remove: Callable[[], None]) -> None:
        self.setName(name)
        self._remove = remove
        self._owner = os.getpid()

    def privilegedStartService(self) -> None:
        """Register the removal at the exit of the process."""
        super().privilegedStartService()
        atexit.register(self._remove_at_exit)

    def stopService(self) -> None:
        """Remove the files."""
        super().stopService()
        self._remove()
        atexit.unregister(self._remove_at_exit)

    def _remove_at_exit(self) -> None:
        # Not in a process that was forked from the server's.
        if os.getpid() == self._owner:
            self._remove()


class WorkFiles(_Removal):
    """
    The work directory; the start also begins to remove what killed servers have left, and does not wait for it.

    :param stopping: Returns whether the search is to end.
    """

    def __init__(
        self,
        work: WorkDirectory,
        temp_directory: Path,
        stores: Sequence[Path],
        stopping: Callable[[], bool],
        defer_to_thread: DeferToThread,
    ) -> None:
        super().__init__("work directory", work.remove)
        self._search = (temp_directory, list(stores), stopping)
        self._defer_to_thread = defer_to_thread

    def startService(self) -> None:
        """Begin to remove what killed servers have left."""
        super().startService()
        self._defer_to_thread(remove_orphans, *self._search).addCallback(_tell).addErrback(
            lambda failure: _log.warn("Cannot remove what a killed server has left: {why}", why=failure.value)
        )


def _tell(removed: list[str]) -> None:
    if removed:
        _log.info("Removed what a killed server has left: {paths}", paths=removed)


class KeyFileRemoval(_Removal):
    """The key file, whose end also comes when the reactor stops before the server has."""

    def __init__(self, key_file: KeyFile, reactor: IReactorCore) -> None:
        super().__init__("key file", key_file.end)
        self._reactor = reactor
        self._trigger: Any = None

    def privilegedStartService(self) -> None:
        """Register the removal at the reactor's shutdown too."""
        super().privilegedStartService()
        # After the triggers that wait for a server that stops: clients need the keys as long as requests are accepted.
        self._trigger = self._reactor.addSystemEventTrigger("after", "shutdown", self._remove)

    def stopService(self) -> None:
        """Remove the file, and the triggers."""
        super().stopService()
        self._reactor.removeSystemEventTrigger(self._trigger)
