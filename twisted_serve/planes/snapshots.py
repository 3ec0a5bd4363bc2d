# SPDX-License-Identifier: Apache-2.0
"""
Write a snapshot file for each change of the registered versions, and keep a bounded number of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from twisted_serve.archives.atomic import give_name, new_file
from twisted_serve.archives.locating import Source
from twisted_serve.archives.store import ModelStore
from twisted_serve.config.properties import render_properties
from twisted_serve.config.snapshots import MODEL_SNAPSHOT, Occasion, snapshot_moment, snapshot_name
from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.interfaces import Now
from twisted_serve.models.snapshot import InvalidSnapshot, RecordedVersion, Snapshot, read, render, take
from twisted_serve.planes.catalogue import Catalogue

_log = Logger("twisted_serve.planes")

_MILLISECOND = timedelta(milliseconds=1)


@frozen
class SnapshotFolder:
    """
    The directory of a server's snapshots.

    :ivar settings: The text of the settings that every snapshot holds besides the models.
    :ivar kept: How many snapshots are kept, the newest ones.
    """

    path: Path
    settings: Mapping[str, str]
    kept: int

    def write(self, snapshot: Snapshot, now: datetime, occasion: Occasion) -> Path:
        """
        Write a snapshot atomically, readable only by its owner, and remove the oldest ones.

        Its name sorts last even if the clock was set back.

        :param now: The time, in the time zone of the names.
        :raise OSError: if the snapshot cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = self._names()
        newest = max((moment for name in before if (moment := snapshot_moment(name))), default=datetime.min)  # noqa: DTZ901 (names have no zone)
        moment = max(now.replace(tzinfo=None), newest + _MILLISECOND if before else newest)
        name = snapshot_name(moment, occasion)
        values = {**self.settings, MODEL_SNAPSHOT: render(snapshot, name, now)}
        head = f"#Saving snapshot\n#{now:%a %b %d %H:%M:%S %Z %Y}\n".encode("ascii", "replace")
        partial = self.path / f".{name}.{os.getpid()}"
        try:
            with new_file(partial) as file:
                file.write(head + render_properties(values))
            give_name(partial, self.path / name)
        finally:
            partial.unlink(missing_ok=True)
        for old in before[: max(0, len(before) + 1 - self.kept)]:
            # Another server may have removed the file.
            with suppress(OSError):
                (self.path / old).unlink()
        return self.path / name

    def _names(self) -> list[str]:
        """Return the names of the existing snapshots, oldest first."""
        return sorted(name for name in os.listdir(self.path) if snapshot_moment(name) is not None)


def restorable(model_snapshot: Mapping[str, Any], store: ModelStore) -> Snapshot:
    """
    Parse the snapshot to restore and check that all its archives exist; this reads the file system.

    :raise InvalidSnapshot: if the snapshot cannot be parsed, or an archive is missing.
    """
    snapshot = read(model_snapshot)
    if not snapshot.versions:
        _log.warn("The snapshot has no models, and so none is loaded")
    for recorded in snapshot.versions:
        _check_there(recorded, store)
    return snapshot


def _check_there(recorded: RecordedVersion, store: ModelStore) -> None:
    try:
        store.locate(recorded.mar_name, Source.SNAPSHOT)
    except ServeError as e:
        raise InvalidSnapshot(
            f"Model archive file for model :{recorded.name}, version :{recorded.version} "
            f"not found in model store ({recorded.mar_name}: {e})"
        ) from e


class Snapshots:
    """
    Takes a snapshot whenever the registered versions change.

    :param folder: The directory of the snapshots; ``None`` if none are taken.
    """

    def __init__(
        self, folder: SnapshotFolder | None, catalogue: Catalogue, now: Now, defer_to_thread: DeferToThread
    ) -> None:
        self._folder = folder
        self._catalogue = catalogue
        self._now = now
        self._defer_to_thread = defer_to_thread
        self._one_at_a_time = DeferredLock()
        self._begun = False
        self._written: Snapshot | None = None

    async def begin(self) -> None:
        """
        Take the first snapshot: the start-up models are registered.

        While a start-up model is missing, no snapshot is taken until a client makes the first change: otherwise the
        next start would restore a snapshot without the missing model and report success.
        """
        if not self._catalogue.stopping:
            self._begun = True
            if not self._catalogue.missing:
                await self._take("startup")

    def changed(self) -> Deferred[None]:
        """
        Take a snapshot if something changed; do nothing before `begin`.

        :return: A Deferred that fires when the current state is on disk, or when writing failed; a failure is logged
            and not raised.
        """
        if self._begun and not self._catalogue.stopping:
            return Deferred.fromCoroutine(self._take("snapshot"))
        return succeed(None)

    async def end(self) -> None:
        """Take the last snapshot, unless start-up models are missing and no snapshot was taken: it would lose them."""
        if self._begun:
            self._begun = False
            if self._written is not None or not self._catalogue.missing:
                await self._take("shutdown")

    async def _take(self, occasion: Occasion) -> None:
        if self._folder is None:
            return
        await self._one_at_a_time.acquire()
        try:
            # Read after the lock is acquired, so that one snapshot covers all changes that waited for the previous one.
            snapshot = self._of_now()
            if occasion == "snapshot" and snapshot == self._written:
                return
            path = await self._defer_to_thread(self._folder.write, snapshot, self._now().astimezone(), occasion)
        except Exception:
            # A failed snapshot does not affect serving.
            _log.failure("The {occasion} snapshot could not be written", occasion=occasion)
        else:
            self._written = snapshot
            _log.debug("Snapshot written: {path}", path=str(path))
        finally:
            self._one_at_a_time.release()

    def _of_now(self) -> Snapshot:
        workers = {(model.name, model.version): (pool.min_workers, pool.max_workers) for model, pool in self._catalogue}
        return take(self._catalogue.registry, workers)
