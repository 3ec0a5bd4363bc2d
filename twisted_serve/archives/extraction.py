# SPDX-License-Identifier: Apache-2.0
"""
Write a directory tree from untrusted archive entries.

Names are compared by path component, never as strings.  Every file and directory is new, private to the owner, and
created by exactly one entry.  Sizes are counted while writing, because the sizes that an archive declares cannot be
trusted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from attrs import define, field, frozen
from attrs.validators import ge, instance_of

from twisted_serve.errors import InternalError, InvalidModel

_MEBIBYTE = 1 << 20

# In bytes, for one path component and for a whole name; the limits of Linux file systems.
_MAX_COMPONENT = 255
_MAX_NAME = 2048

#: Maximum number of path components of an entry: more than any real model has, fewer than break common tools.
MAX_DEPTH = 64

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@frozen
class UnpackLimits:
    """
    Limits on the contents of an archive.

    :ivar max_size: Bytes of all files together.
    :ivar max_entries: Files and directories, including directories that are only implied by a name.
    :ivar max_ratio: Bytes written per byte of the archive.
    :ivar free_size: Bytes up to which the ratio is not checked: small, highly regular files are legitimate.
    """

    max_size: int = field(default=64 * 1024 * _MEBIBYTE, validator=[instance_of(int), ge(1)])
    max_entries: int = field(default=10_000, validator=[instance_of(int), ge(1)])
    max_ratio: int = field(default=100, validator=[instance_of(int), ge(1)])
    free_size: int = field(default=64 * _MEBIBYTE, validator=[instance_of(int), ge(0)])

    def allowance(self, archive_size: int) -> int:
        """Return the number of bytes that an archive of ``archive_size`` bytes may unpack to."""
        return min(self.max_size, max(self.free_size, self.max_ratio * archive_size))


def components(name: str) -> tuple[str, ...]:
    """
    Split the name of an entry into components, including ``.`` and empty ones, which the caller drops.

    :raise InvalidModel: if the name could refer to a path outside the target directory on any operating system.
    """
    parts = tuple(name.split("/"))
    if (
        not name
        or name.startswith("/")
        or "\\" in name
        or ".." in parts
        or _CONTROL.search(name) is not None
        or _DRIVE.match(name) is not None
    ):
        raise InvalidModel(f"The archive has an entry with the unsafe name {name!r:.200}.")
    try:
        too_long = len(name.encode()) > _MAX_NAME or any(len(part.encode()) > _MAX_COMPONENT for part in parts)
    except UnicodeEncodeError:
        raise InvalidModel(f"The archive has an entry whose name is not UTF-8: {name!r:.200}.") from None
    if too_long:
        raise InvalidModel(f"The archive has an entry with a name of {len(name)} characters: {name!r:.200}.")
    if len(_drop_empty(parts)) > MAX_DEPTH:
        raise InvalidModel(f"The archive has an entry more than {MAX_DEPTH} directories deep: {name!r:.200}.")
    return parts


@define(eq=False)
class NewTree:
    """
    A directory that an archive is being extracted to.

    :ivar root: The directory; it exists and is empty.
    :ivar title: The archive's name, for error messages.
    :ivar allowance: Maximum number of bytes to write.
    """

    root: Path
    title: str
    allowance: int
    max_entries: int
    _is_file: dict[tuple[str, ...], bool] = field(factory=dict, init=False)
    _explicit: set[tuple[str, ...]] = field(factory=set, init=False)
    _written: int = field(default=0, init=False)

    def add_directory(self, parts: tuple[str, ...]) -> None:
        """
        Create a directory and its parents.

        :raise InvalidModel: if the archive names the directory twice, or has a file of this name.
        """
        parts = _drop_empty(parts)
        if parts:
            self._reserve(parts)
            self._ensure_directories(parts)

    def add_file(self, parts: tuple[str, ...], content: Iterable[bytes], executable: bool = False) -> None:
        """
        Write a file, and create its parent directories.

        :raise InvalidModel: if the archive has the name twice, or the tree becomes too large.
        :raise InternalError: if the file cannot be saved.
        """
        parts = _drop_empty(parts)
        if not parts:
            raise InvalidModel("The archive has a file without a name.")
        self._reserve(parts)
        self._ensure_directories(parts[:-1])
        if parts in self._is_file:
            raise self._collision(parts)
        self._count(parts, is_file=True)
        with self._saving():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.root.joinpath(*parts), flags, 0o700 if executable else 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            for chunk in content:
                self._written += len(chunk)
                if self._written > self.allowance:
                    raise InvalidModel(f"The archive unpacks to more than {self.allowance} bytes.")
                with self._saving():
                    write_all(file, chunk)

    def _reserve(self, parts: tuple[str, ...]) -> None:
        if parts in self._explicit:
            raise InvalidModel(f"The archive has two entries named {'/'.join(parts)!r}.")
        self._explicit.add(parts)

    def _count(self, parts: tuple[str, ...], is_file: bool) -> None:
        self._is_file[parts] = is_file
        if len(self._is_file) > self.max_entries:
            raise InvalidModel(f"The archive has more than {self.max_entries} entries.")

    def _ensure_directories(self, parts: tuple[str, ...]) -> None:
        for end in range(1, len(parts) + 1):
            above = parts[:end]
            known = self._is_file.get(above)
            if known:
                raise self._collision(above)
            if known is None:
                self._count(above, is_file=False)
                with self._saving():
                    # Not makedirs, which applies its mode to the last directory only.
                    os.mkdir(self.root.joinpath(*above), 0o700)

    def _collision(self, parts: tuple[str, ...]) -> InvalidModel:
        return InvalidModel(f"The archive has {'/'.join(parts)!r} both as a file and as a directory.")

    def _saving(self) -> Saving:
        return Saving(self.title)


@frozen
class _Translating:
    """
    A context manager that translates `OSError` to an error for the client.

    :ivar title: The file being read or written, for the error message.
    """

    title: str

    def answer(self, error: OSError) -> InternalError:
        """Return the error for the client."""
        raise NotImplementedError

    def __enter__(self) -> None:
        """Enter the context."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """
        Translate an `OSError`.

        :raise InternalError: in place of the `OSError`.
        """
        if isinstance(error, OSError):
            raise self.answer(error) from error


class Saving(_Translating):
    """A context manager for writing a model; errors such as a full disk are translated."""

    def answer(self, error: OSError) -> InternalError:
        """Return the error of `not_saved`."""
        return not_saved(self.title, error)


class Reading(_Translating):
    """A context manager for reading a file that the operator provides; errors are translated."""

    def answer(self, error: OSError) -> InternalError:
        """Return the error of `not_read`."""
        return not_read(self.title, error)


def not_saved(title: str, error: OSError) -> InternalError:
    """Return the client's error for a model that cannot be written, with the operating system's reason."""
    return InternalError(f"Failed to save model: {title}").because(error.strerror or str(error))


def not_read(title: str, error: OSError) -> InternalError:
    """Return the client's error for a file that cannot be read, with the operating system's reason."""
    why = error.strerror or str(error)
    return InternalError(f"Failed to read {title}: {why}").because(why)


def write_all(file: FileIO, data: bytes) -> None:
    """
    Write all of ``data`` to an unbuffered file, which may accept only part of it per call, e.g. when the disk fills up.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _drop_empty(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in parts if part not in ("", "."))
