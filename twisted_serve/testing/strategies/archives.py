# SPDX-License-Identifier: Apache-2.0
"""
Generate valid and malicious archives.
"""

from __future__ import annotations

import io
import json
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from attrs import frozen
from hypothesis import strategies as st


class EntryKind(Enum):
    """The declared type of an archive entry: the file type bits of its mode, and the type of a tar member."""

    FILE = (stat.S_IFREG, tarfile.REGTYPE)
    DIRECTORY = (stat.S_IFDIR, tarfile.DIRTYPE)
    SYMBOLIC_LINK = (stat.S_IFLNK, tarfile.SYMTYPE)
    HARD_LINK = (stat.S_IFLNK, tarfile.LNKTYPE)
    FIFO = (stat.S_IFIFO, tarfile.FIFOTYPE)
    DEVICE = (stat.S_IFBLK, tarfile.BLKTYPE)


@frozen
class ArchiveEntry:
    """
    One entry of an archive.

    :ivar content: The content of a file, or the target of a link.
    """

    name: str
    content: bytes = b""
    kind: EntryKind = EntryKind.FILE
    executable: bool = False

    @property
    def mode(self) -> int:
        """The permissions: too wide, since programs that unpack archives must not apply them."""
        return 0o777 if self.executable else 0o666


def zip_archive(entries: Iterable[ArchiveEntry], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ``.mar`` with exactly these entries."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive, warnings.catch_warnings():
        # Some tests need an archive with a duplicate name.
        warnings.simplefilter("ignore", UserWarning)
        for entry in entries:
            directory = entry.kind is EntryKind.DIRECTORY
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = entry.name + ("/" if directory else "")
            info.compress_type = compression
            info.external_attr = (entry.kind.value[0] | entry.mode) << 16
            archive.writestr(info, b"" if directory else entry.content)
    return data.getvalue()


def tar_archive(entries: Iterable[ArchiveEntry], top: str | None = "model") -> bytes:
    """
    Return a ``.tar.gz`` with these entries.

    :param top: A directory prepended to each name; ``None`` for none.
    """
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name if top is None else f"{top}/{entry.name}")
            info.type = entry.kind.value[1]
            info.mode = entry.mode
            if entry.kind is EntryKind.FILE:
                info.size = len(entry.content)
                archive.addfile(info, io.BytesIO(entry.content))
            else:
                info.linkname = entry.content.decode("latin-1")
                archive.addfile(info)
    return data.getvalue()


def model_entries(files: Mapping[str, bytes], **model: Any) -> list[ArchiveEntry]:
    """
    Return the entries of a valid archive: ``files``, and a manifest.

    :param model: The members of the manifest's ``model``, such as ``modelName``.
    """
    manifest = {"createdOn": "01/01/2026 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    return [
        *(ArchiveEntry(name, content) for name, content in files.items()),
        ArchiveEntry("MAR-INF/MANIFEST.json", json.dumps(manifest).encode()),
    ]


def path_components() -> st.SearchStrategy[str]:
    """Generate ordinary file names."""
    alphabet = st.characters(codec="utf-8", exclude_characters="/\\:", exclude_categories=("Cc", "Cs"))
    return st.text(alphabet, min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))


def safe_names() -> st.SearchStrategy[str]:
    """Generate relative paths that stay inside their directory."""
    return st.lists(path_components(), min_size=1, max_size=4).map("/".join)


def hostile_names() -> st.SearchStrategy[str]:
    """Generate paths that lead outside the directory on this or another system, or with another parser."""
    up = st.lists(st.sampled_from(["..", ".", "a", ""]), min_size=1, max_size=6).map(
        lambda parts: "/".join([*parts, "..", "x"])
    )
    return st.one_of(
        up,
        st.sampled_from(
            [
                "..",
                "/etc/x",
                "//etc/x",
                "a/../../target-sibling/x",
                "..\\..\\x",
                "a\\..\\..\\x",
                "C:/x",
                "c:x",
                "\\\\server\\share",
                "a\nb",
                "\x1b[2J",
                "x" * 300,
                "/".join(["d" * 200] * 30),
            ]
        ),
    )


def archive_trees() -> st.SearchStrategy[list[ArchiveEntry]]:
    """Generate the entries of archives: ordinary ones, and ones with attacks of every kind."""
    few_names = st.sampled_from(["a", "a/b", "a/b/c", "a/../b", "./a", "a//b", "b"])
    names = st.one_of(safe_names(), few_names, hostile_names())
    contents = st.one_of(st.binary(max_size=64), st.sampled_from([b"..", b"../../etc", b"/etc/passwd", b"a"]))
    entries = st.builds(ArchiveEntry, names, contents, st.sampled_from(EntryKind), st.booleans())
    honest = st.builds(ArchiveEntry, safe_names(), contents, st.just(EntryKind.FILE), st.booleans())
    return st.one_of(
        st.lists(honest, max_size=6, unique_by=lambda entry: entry.name),
        st.lists(st.one_of(honest, entries), max_size=6),
    )
