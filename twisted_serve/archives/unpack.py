# SPDX-License-Identifier: Apache-2.0
"""
Unpack a zip (``.mar``, ``.war``) or ``.tar.gz`` archive into a new directory, completely or not at all.

Blocking: call in a thread.  The formats are described in ``docs/torchserve/archives_workers_handlers.md`` §1.1;
`twisted_serve.archives.extraction` enforces the rules for the files written.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from attrs import define, field

from twisted_serve.archives.extraction import NewTree, Saving, UnpackLimits, components, not_read
from twisted_serve.archives.removal import remove_tree
from twisted_serve.errors import InvalidModel

_CHUNK = 256 * 1024

# Of models and workflows; these directories contain only the manifest.
_MANIFEST_DIRECTORIES = frozenset({"MAR-INF", "WAR-INF"})

_ZIPS = (".mar", ".war")

# The standard library's zip and tar readers read an index, or an extended header, in one piece of a size that the
# archive declares.  An entry of a zip's index takes 46 bytes and its name; longer names than this allows are refused
# later anyway.
_INDEX_BYTES_PER_ENTRY = 512

_ENCRYPTED = 0x1 | 0x40 | 0x2000

# Exceptions of the standard library's readers for damaged or forged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
)


def unpack(archive: Path, target: Path, limits: UnpackLimits) -> None:
    """
    Unpack an archive into a directory.

    :param archive: A zip if its name ends in ``.mar`` or ``.war``; otherwise a gzip-compressed tar. The first path
        component of a tar's members is removed, unless the manifest's position shows that the archive has no enclosing
        directory.
    :param target: The directory to create; after an error it does not exist.
    :raise InvalidModel: if the archive is damaged, too large, or has an unsafe entry.
    :raise InternalError: if the archive cannot be read or the directory cannot be written, e.g. because the disk is
        full.
    """
    try:
        _unpack(archive, target, limits, strip=True)
    except _NoTopDirectoryError:
        _unpack(archive, target, limits, strip=False)


def is_zip(archive: Path) -> bool:
    """Return whether an archive is a zip rather than a tar, by its name."""
    return archive.name.lower().endswith(_ZIPS)


class _NoTopDirectoryError(Exception):
    """A tar has its manifest at the top level, so no component must be removed from its members' names."""


def _unpack(archive: Path, target: Path, limits: UnpackLimits, strip: bool) -> None:
    with Saving(archive.name):
        target.mkdir(mode=0o700)
    try:
        try:
            with open(archive, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                tree = NewTree(target, archive.name, limits.allowance(size), limits.max_entries)
                if is_zip(archive):
                    _unzip(file, tree)
                else:
                    _untar(file, tree, strip)
        except _DAMAGE as e:
            raise _damage_error(archive, e) from e
        except OSError as e:
            # A corrupt zip index makes the reader seek to before the beginning of the file.
            if e.errno == errno.EINVAL:
                raise _damage_error(archive, e) from e
            raise not_read(archive.name, e) from e
    except BaseException:
        remove_tree(target)
        raise


def _damage_error(archive: Path, error: Exception) -> InvalidModel:
    form = "zip" if is_zip(archive) else "tar.gz"
    return InvalidModel(f"{archive.name} is not a valid {form} archive: {error}")


class _BoundedReader(io.BufferedReader):
    """A file that refuses to read more than ``max_read`` bytes at a time."""

    def __init__(self, raw: io.FileIO, max_read: int) -> None:
        super().__init__(raw)
        self.max_read = max_read

    def read(self, size: int | None = -1, /) -> bytes:
        """
        Read at most ``size`` bytes.

        :raise InvalidModel: if ``size`` exceeds ``max_read``.
        """
        if size is not None and size > self.max_read:
            raise InvalidModel("The archive has an index that is too large.")
        return super().read(size)


def _unzip(file: io.FileIO, tree: NewTree) -> None:
    index = max(_CHUNK, tree.max_entries * _INDEX_BYTES_PER_ENTRY)
    with zipfile.ZipFile(_BoundedReader(file, index)) as opened:
        entries = opened.infolist()
        if sum(entry.file_size for entry in entries) > tree.allowance:
            raise InvalidModel(f"The archive unpacks to more than {tree.allowance} bytes.")
        for entry in entries:
            # ``filename`` ends at the first NUL; ``orig_filename`` is the complete name from the archive.
            parts = components(entry.orig_filename)
            mode = entry.external_attr >> 16
            if entry.flag_bits & _ENCRYPTED:
                raise InvalidModel(f"The entry {entry.filename!r} of the archive is encrypted.")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InvalidModel(f"The entry {entry.filename!r} of the archive has an unknown compression.")
            if stat.S_IFMT(mode) not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
                raise InvalidModel(f"The entry {entry.filename!r} of the archive is neither a file nor a directory.")
            if entry.is_dir():
                tree.add_directory(parts)
                continue
            with opened.open(entry) as content:
                tree.add_file(parts, _chunks(content), executable=bool(mode & stat.S_IXUSR))


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    while chunk := content.read(_CHUNK):
        yield chunk


@define(eq=False)
class _GzipStream:
    """
    The decompressed contents of a gzip file as a forward-only stream with a size limit, for `tarfile`.

    :ivar allowance: Maximum number of bytes to read or skip in total.
    """

    source: gzip.GzipFile
    allowance: int
    _position: int = field(default=0, init=False)

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < self._position:
            raise InvalidModel("The archive has members which overlap.")
        while self._position < position:
            if not self.read(min(_CHUNK, position - self._position)):
                raise EOFError("unexpected end of data")
        return position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise InvalidModel("The archive has a header that is too large.")
        data = self.source.read(size)
        self._position += len(data)
        if self._position > self.allowance:
            raise InvalidModel(f"The archive unpacks to more than {self.allowance} bytes.")
        return data


def _untar(file: io.FileIO, tree: NewTree, strip: bool) -> None:
    # Each entry adds at most two blocks of 512 bytes: its header, and padding after its content.
    overhead = 1024 * (tree.max_entries + 20)
    with gzip.GzipFile(fileobj=file) as source:
        data = _GzipStream(source, tree.allowance + overhead)
        # tarfile needs only tell, seek and read, but its annotation asks for a complete file object.
        with tarfile.open(fileobj=data, mode="r:") as opened:  # type: ignore[call-overload]
            for count, member in enumerate(opened):
                if count >= tree.max_entries:
                    raise InvalidModel(f"The archive has more than {tree.max_entries} entries.")
                _extract_member(member, data, tree, strip)
        # The checksum is at the end of a gzip file, so read all of it.
        while data.read(_CHUNK):
            pass


def _extract_member(member: tarfile.TarInfo, data: _GzipStream, tree: NewTree, strip: bool) -> None:
    parts = components(member.name)
    # Only now is the archive known to have no enclosing directory; the files written so far must be removed.
    if strip and parts[0] in _MANIFEST_DIRECTORIES:
        raise _NoTopDirectoryError
    below = parts[1:] if strip else parts
    if member.isdir():
        tree.add_directory(below)
    elif member.isreg() and not member.issparse():
        data.seek(member.offset_data)
        tree.add_file(below or parts, _read_exactly(data, member.size), executable=bool(member.mode & stat.S_IXUSR))
    else:
        raise InvalidModel(f"The entry {member.name!r} of the archive is neither a file nor a directory.")


def _read_exactly(data: _GzipStream, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = data.read(min(_CHUNK, size))
        if not chunk:
            raise EOFError("unexpected end of data")
        size -= len(chunk)
        yield chunk
