# SPDX-License-Identifier: Apache-2.0
"""
This module implements unpacking: a zip (``.mar``, ``.war``) or a ``.tar.gz`` becomes a new directory, or nothing.

It blocks: run it in a thread.  ``docs/torchserve/archives_workers_handlers.md`` §1.1 has the
forms, `twisted_serve.archives.tree` the rules for what is written.
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

from twisted_serve.archives.removal import remove_tree
from twisted_serve.archives.tree import NewTree, Saving, UnpackLimits, components, not_read
from twisted_serve.errors import InvalidModel

_CHUNK = 256 * 1024

# Of models and of workflows; beside their manifests there is nothing else in these.
_MANIFEST_DIRECTORIES = frozenset({"MAR-INF", "WAR-INF"})

_ZIPS = (".mar", ".war")

# The zip and tar readers of the standard library take an index, or an extended header, in one
# piece: the size they ask for comes from the archive.  An entry of a zip's index needs 46 bytes
# and its name; a name of more than this is refused later anyway.
_INDEX_BYTES_PER_ENTRY = 512

_ENCRYPTED = 0x1 | 0x40 | 0x2000

# What the readers of the standard library raise over archives which are damaged, or made to look so.
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
    Unpack an archive to a directory.

    :param archive: A zip if its name ends in ``.mar`` or ``.war``, else a gzip-compressed tar whose members
        lose the first component of their names, unless its manifest shows that they have one too few for that.
    :param target: The directory, which this makes; after an error it does not exist.
    :raise InvalidModel: if the archive is damaged, too large, or has an entry that is not safe.
    :raise InternalError: if the archive cannot be read, or the directory not be written, e.g. because the disk is full.
    """
    try:
        _unpack(archive, target, limits, strip=True)
    except _FlatError:
        _unpack(archive, target, limits, strip=False)


def is_zip(archive: Path) -> bool:
    """Say whether an archive is to be read as a zip, and not as a tar: its name decides."""
    return archive.name.lower().endswith(_ZIPS)


class _FlatError(Exception):
    """A tar has its manifest at the top: nothing is to be taken from the names of its members."""


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
            raise _damaged(archive, e) from e
        except OSError as e:
            # A zip's index with nonsense in it makes the reader seek to before the file's beginning.
            if e.errno == errno.EINVAL:
                raise _damaged(archive, e) from e
            raise not_read(archive.name, e) from e
    except BaseException:
        remove_tree(target)
        raise


def _damaged(archive: Path, error: Exception) -> InvalidModel:
    form = "zip" if is_zip(archive) else "tar.gz"
    return InvalidModel(f"{archive.name} is not a valid {form} archive: {error}")


class _BoundedReader(io.BufferedReader):
    """A file of which nobody reads more than ``max_read`` bytes in one piece."""

    def __init__(self, raw: io.FileIO, max_read: int) -> None:
        super().__init__(raw)
        self.max_read = max_read

    def read(self, size: int | None = -1, /) -> bytes:
        """
        Read as any file.

        :raise InvalidModel: if ``size`` is too large to be honest.
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
            # ``filename`` ends at the first NUL; what the archive says is ``orig_filename``.
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
class _Inflated:
    """
    The contents of a gzip file, forward only and counted: what `tarfile` reads from.

    :ivar allowance: Bytes that may be read, or skipped, in all.
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
    # Two blocks of 512 bytes come with an entry: its header, and the filling after its end.
    overhead = 1024 * (tree.max_entries + 20)
    with gzip.GzipFile(fileobj=file) as source:
        data = _Inflated(source, tree.allowance + overhead)
        # It needs tell, seek and read, of all the things that a typed file has.
        with tarfile.open(fileobj=data, mode="r:") as opened:  # type: ignore[call-overload]
            for count, member in enumerate(opened):
                if count >= tree.max_entries:
                    raise InvalidModel(f"The archive has more than {tree.max_entries} entries.")
                _take(member, data, tree, strip)
        # The checksum of a gzip file stands at its end.
        while data.read(_CHUNK):
            pass


def _take(member: tarfile.TarInfo, data: _Inflated, tree: NewTree, strip: bool) -> None:
    parts = components(member.name)
    # Only now is it known that the archive was made without a directory around it: what was written is to be undone.
    if strip and parts[0] in _MANIFEST_DIRECTORIES:
        raise _FlatError
    below = parts[1:] if strip else parts
    if member.isdir():
        tree.add_directory(below)
    elif member.isreg() and not member.issparse():
        data.seek(member.offset_data)
        tree.add_file(below or parts, _exactly(data, member.size), executable=bool(member.mode & stat.S_IXUSR))
    else:
        raise InvalidModel(f"The entry {member.name!r} of the archive is neither a file nor a directory.")


def _exactly(data: _Inflated, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = data.read(min(_CHUNK, size))
        if not chunk:
            raise EOFError("unexpected end of data")
        size -= len(chunk)
        yield chunk
