# SPDX-License-Identifier: Apache-2.0
"""
Write the archive formats (``docs/torchserve/archives_workers_handlers.md`` §1.1).

Order, times, owners and permissions are fixed here rather than taken from the machine, so that the same files produce
the same bytes.
"""

from __future__ import annotations

import calendar
import gzip
import io
import os
import shutil
import stat
import tarfile
import time
import zipfile
from pathlib import Path
from typing import IO

from attrs import frozen

from twisted_serve.archives.atomic import flush

#: The default time of all entries: the earliest that a zip can store.
EPOCH = calendar.timegm((1980, 1, 1, 0, 0, 0))

#: The latest time that a gzip file can store, slightly before the latest of a zip.
LAST_TIME = (1 << 32) - 1

_COMPRESSION = {"default": zipfile.ZIP_DEFLATED, "zip-store": zipfile.ZIP_STORED}


@frozen
class Entry:
    """
    A file of the archive.

    :ivar source: The path of the file, or its content.
    """

    name: str
    source: Path | bytes

    @property
    def mode(self) -> int:
        """The permissions, independent of the umask."""
        executable = isinstance(self.source, Path) and self.source.stat().st_mode & stat.S_IXUSR
        return 0o755 if executable else 0o644

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.source.stat().st_size if isinstance(self.source, Path) else len(self.source)

    def open(self) -> IO[bytes]:
        """Open the content for reading."""
        return open(self.source, "rb") if isinstance(self.source, Path) else io.BytesIO(self.source)


def write_archive(form: str, path: Path, top: str, entries: list[Entry], stamp: int) -> None:
    """
    Write an archive.

    :param form: One of `twisted_serve.archiver.config.FORMATS`.
    :param path: The file to create, or for ``no-archive`` the directory.
    :param top: The top-level directory in a tar.
    :param stamp: The time of all entries, in seconds since 1970.
    """
    if form == "no-archive":
        _write_directory(path, entries, stamp)
        return
    with open(path, "xb") as file:
        if form == "tgz":
            _write_tar(file, top, entries, stamp)
        else:
            _write_zip(file, entries, stamp, _COMPRESSION[form])


def _write_zip(file: IO[bytes], entries: list[Entry], stamp: int, compression: int) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, time.gmtime(stamp)[:6])
            info.compress_type = compression
            # Fixed (Unix), because the default depends on the system that makes the archive.
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | entry.mode) << 16
            info.file_size = entry.size
            with entry.open() as source, archive.open(info, "w") as packed:
                shutil.copyfileobj(source, packed, 1 << 20)


def _write_tar(file: IO[bytes], top: str, entries: list[Entry], stamp: int) -> None:
    with (
        gzip.GzipFile("", "wb", fileobj=file, mtime=stamp) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in entries:
            info = tarfile.TarInfo(f"{top}/{entry.name}")
            info.mode, info.mtime, info.size = entry.mode, stamp, entry.size
            with entry.open() as source:
                archive.addfile(info, source)


def _write_directory(path: Path, entries: list[Entry], stamp: int) -> None:
    path.mkdir()
    for entry in entries:
        target = path / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        os.chmod(target, entry.mode)
        os.utime(target, (stamp, stamp))
        flush(target)
