# SPDX-License-Identifier: Apache-2.0
"""
Write a planned archive completely or not at all.

Everything is written under a unique name beside the target, so that two packers of one archive do not collide and no
other directory is touched.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from itertools import starmap
from pathlib import Path
from typing import Any
from uuid import uuid4

from attrs import frozen

from twisted_serve.archiver.config import ArchiverError
from twisted_serve.archiver.forms import EPOCH, LAST_TIME, Entry, write_archive
from twisted_serve.archives.atomic import flush, give_name
from twisted_serve.archives.removal import remove_tree


def ignore_warning(_warning: str) -> None:
    """Discard a warning."""


@frozen
class Destination:
    """
    The target of an archive.

    :ivar path: The archive.
    :ivar form: One of `twisted_serve.archiver.config.FORMATS`.
    :ivar top: The top-level directory in a tar.
    :ivar force: Whether an existing archive may be replaced.
    :ivar kind: ``model`` or ``workflow``.
    :ivar manifest: The path of the manifest in the archive, which identifies a directory as an archive.
    """

    path: Path
    form: str
    top: str
    force: bool
    kind: str
    manifest: str

    def check(self) -> None:
        """
        Check that nothing exists at the path that may not be replaced.

        :raise ArchiverError: if it does.
        """
        if not os.path.lexists(self.path):
            return
        if not self.force:
            raise ArchiverError(
                f"{self.path} already exists.\nPlease specify --force/-f option to overwrite the {self.kind} archive."
            )
        if self.form == "no-archive":
            # A directory of this name without a manifest is not an archive and must not be deleted.
            if self.path.is_symlink() or not (self.path / self.manifest).is_file():
                raise ArchiverError(
                    f"{self.path} exists and is not the directory of a {self.kind}; it is not overwritten."
                )
        elif not self.path.is_file():
            raise ArchiverError(f"{self.path} exists and is not a file; it is not overwritten.")


@frozen
class Plan:
    """
    An archive that can be written: all files are checked, none is written yet.

    :ivar entries: The files of the archive, in order.
    :ivar stamp: The time of all entries, in seconds since 1970.
    """

    destination: Destination
    entries: tuple[Entry, ...]
    stamp: int

    @classmethod
    def of(cls, destination: Destination, manifest: Mapping[str, Any], files: Mapping[str, Path], stamp: int) -> Plan:
        """
        Plan an archive of the given files, by their names in it, preceded by the manifest.

        :raise ArchiverError: if the destination is not writable.
        """
        text = json.dumps(manifest, indent=2, ensure_ascii=False).encode()
        destination.check()
        return cls(destination, (Entry(destination.manifest, text), *starmap(Entry, files.items())), stamp)


def write(planned: Plan, warn: Callable[[str], object] = ignore_warning) -> Path:
    """
    Write a planned archive.

    :return: The archive.
    :raise ArchiverError: if a file cannot be read or written; no file is left behind.
    """
    destination, target = planned.destination, planned.destination.path
    partial_archive = target.with_name(f".{target.name[:100]}-{uuid4().hex}.part")
    try:
        if not target.parent.is_dir():
            warn(f"Export directory ({target.parent}) does not exist. Creating...")
            target.parent.mkdir(parents=True, exist_ok=True)
        write_archive(destination.form, partial_archive, destination.top, list(planned.entries), planned.stamp)
        if os.path.lexists(target):
            destination.check()
            warn(f"Overwriting {target} ...")
        _publish(partial_archive, destination)
    except OSError as e:
        raise ArchiverError(f"Cannot make {target}: {e}") from e
    finally:
        _remove(partial_archive)
    return target


def source_date_epoch(environ: Mapping[str, str]) -> int:
    """
    Return the time of ``SOURCE_DATE_EPOCH`` (a convention for reproducible builds), clamped to the range of a zip.

    :raise ArchiverError: if it is not a number.
    """
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return EPOCH
    try:
        return min(max(int(text), EPOCH), LAST_TIME)
    except ValueError:
        raise ArchiverError(f"SOURCE_DATE_EPOCH is {text!r:.100}, expected seconds since 1970.") from None


def created_on(stamp: int) -> str:
    """Format a time for a manifest."""
    return time.strftime("%d/%m/%Y %H:%M:%S", time.gmtime(stamp))


def _publish(written: Path, destination: Destination) -> None:
    target = destination.path
    try:
        if destination.form == "no-archive":
            _publish_directory(written, target)
        elif destination.force:
            flush(written)
            os.replace(written, target)
        else:
            give_name(written, target)
    except FileExistsError:
        # Another process published an archive of this name first.
        raise ArchiverError(f"{target} already exists.") from None


def _publish_directory(written: Path, target: Path) -> None:
    """Replace a directory.  No single system call does that, so on failure the old directory is restored."""
    if not os.path.lexists(target):
        os.rename(written, target)
        return
    old = written.with_suffix(".old")
    os.rename(target, old)
    try:
        os.rename(written, target)
    except BaseException:
        os.rename(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_tree(path)
    elif os.path.lexists(path):
        path.unlink()
