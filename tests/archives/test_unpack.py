# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.unpack` and `twisted_serve.archives.extraction`."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import struct
import zipfile

from tests.archives.unpack_case import SMALL, UnpackTestCase, tree_of
from twisted_serve.archives.extraction import NewTree, Saving, UnpackLimits, write_all
from twisted_serve.archives.unpack import unpack
from twisted_serve.errors import InternalError
from twisted_serve.testing.strategies.archives import (
    ArchiveEntry,
    EntryKind,
    model_entries,
    tar_archive,
    zip_archive,
)


class FormsTests(UnpackTestCase):
    """Tests for the archive formats."""

    entries = model_entries({"handler.py": b"pass", "extra/deep/words.txt": b"a b"}, modelName="m")
    files = {
        "handler.py": b"pass",
        "extra": None,
        "extra/deep": None,
        "extra/deep/words.txt": b"a b",
        "MAR-INF": None,
        "MAR-INF/MANIFEST.json": entries[-1].content,
    }

    def test_mar(self) -> None:
        """A ``.mar``, compressed or not, unpacks to its files, whatever the case of its extension."""
        self.assertEqual(self.unpacked("m.mar", zip_archive(self.entries)), self.files)
        self.target = self.root / "second"
        self.assertEqual(self.unpacked("m.MAR", zip_archive(self.entries, zipfile.ZIP_STORED)), self.files)

    def test_tar(self) -> None:
        """A gzip-compressed tar loses the first component of its names; other names than ``.mar`` mean that form."""
        for name in ("m.tar.gz", "m.tgz", "m.model"):
            self.target = self.root / f"of-{name}"
            self.assertEqual(self.unpacked(name, tar_archive(self.entries)), self.files)

    def test_tar_of_here(self) -> None:
        """An archive of ``.`` unpacks like one of the directory's name, and so do its directory entries."""
        directories = [ArchiveEntry(n, kind=EntryKind.DIRECTORY) for n in ("", "extra", "extra/deep", "MAR-INF")]
        self.assertEqual(self.unpacked("m.tgz", tar_archive([*directories, *self.entries], top=".")), self.files)

    def test_tar_without_top(self) -> None:
        """A tar member without a directory keeps its name; a directory that is only the first component is dropped."""
        entries = [ArchiveEntry("a.txt", b"1"), ArchiveEntry("m", kind=EntryKind.DIRECTORY), ArchiveEntry("m/b", b"2")]
        self.assertEqual(self.unpacked("m.tgz", tar_archive(entries, top=None)), {"a.txt": b"1", "b": b"2"})

    def test_flat_tar(self) -> None:
        """A tar with its manifest at the top level has no enclosing directory, and all names are kept."""
        twice = [ArchiveEntry("MAR-INF/x"), ArchiveEntry("MAR-INF/x")]
        self.assertRefused("m.tgz", tar_archive(twice, top=None), "two entries named")
        for entries in (self.entries, self.entries[::-1]):
            self.target = self.root / f"of-{entries[0].name}".replace("/", "-")
            self.assertEqual(self.unpacked("m.tgz", tar_archive(entries, top=None)), self.files)

    def test_directories(self) -> None:
        """Directories may be listed before or after their contents."""
        entries = [ArchiveEntry("a/b", b"1"), ArchiveEntry("a", kind=EntryKind.DIRECTORY)]
        self.assertEqual(self.unpacked("m.mar", zip_archive(entries)), {"a": None, "a/b": b"1"})
        self.target = self.root / "second"
        self.assertEqual(self.unpacked("n.mar", zip_archive(entries[::-1])), {"a": None, "a/b": b"1"})

    def test_dots_mean_nothing(self) -> None:
        """``./a`` and ``a//b`` are ``a`` and ``a/b``."""
        entries = [ArchiveEntry("./a//b", b"1"), ArchiveEntry(".", kind=EntryKind.DIRECTORY)]
        self.assertEqual(self.unpacked("m.mar", zip_archive(entries)), {"a": None, "a/b": b"1"})

    def test_private(self) -> None:
        """What is unpacked is the owner's alone; of the archive's permissions, only the owner's x counts."""
        entries = [ArchiveEntry("d/plain"), ArchiveEntry("d/run", executable=True)]
        for name, data in (("m.mar", zip_archive(entries)), ("m.tgz", tar_archive(entries))):
            self.target = self.root / f"of-{name}"
            self.unpacked(name, data)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [self.target, *self.target.rglob("*")]}
            self.assertEqual(modes, {self.target.name: 0o700, "d": 0o700, "plain": 0o600, "run": 0o700})

    def test_large_file(self) -> None:
        """A file of many chunks arrives whole."""
        content = os.urandom(700_001)
        for name, make in (("m.mar", zip_archive), ("m.tgz", tar_archive)):
            self.target = self.root / f"of-{name}"
            self.assertEqual(self.unpacked(name, make([ArchiveEntry("w.pt", content)])), {"w.pt": content})

    def test_target_exists(self) -> None:
        """A directory that is there already is neither filled nor removed."""
        self.target.mkdir()
        (self.target / "mine").touch()
        self.assertRaises(InternalError, self.unpacked, "m.mar", zip_archive([]))
        self.assertEqual(tree_of(self.target), {"mine": b""})


class DamagedTests(UnpackTestCase):
    """Tests for damaged archives."""

    entries = [ArchiveEntry("a", os.urandom(3000)), ArchiveEntry("b", b"x" * 3000)]

    def test_junk(self) -> None:
        """A file that is no archive at all, or an empty one, is refused and not taken for an empty model."""
        for junk in (b"", b"junk" * 300, b"PK\x03\x04", b"\x1f\x8b"):
            self.assertRefused("m.mar", junk, "m.mar is not a valid zip archive: ")
            (self.root / "m.mar").unlink()
            self.assertRefused("m.tgz", junk, "m.tgz is not a valid tar.gz archive: ")
            (self.root / "m.tgz").unlink()

    def test_truncated(self) -> None:
        """An archive without its end is refused."""
        data = zip_archive(self.entries)
        self.assertRefused("m.mar", data[:-60], "not a valid zip")
        (self.root / "m.mar").unlink()
        for cut in (8, 60, 1500):
            self.assertRefused("m.tgz", tar_archive(self.entries)[:-cut], "not a valid tar.gz")

    def test_truncated_tar_in_whole_gzip(self) -> None:
        """A tar that was cut before it was compressed is refused."""
        tar = gzip.decompress(tar_archive(self.entries))
        # In the content of the first member, and right after it.
        for length in (2000, 512 + 3000):
            self.assertRefused("m.tgz", gzip.compress(tar[:length]), "unexpected end of data")

    def test_checksum(self) -> None:
        """A changed byte is noticed, and what was written until then is removed."""
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            data = bytearray(zip_archive(self.entries, compression))
            data[100] ^= 1
            self.assertRefused("m.mar", bytes(data), "not a valid zip")
            (self.root / "m.mar").unlink()
        data = bytearray(tar_archive(self.entries))
        data[-6] ^= 1
        self.assertRefused("m.tgz", bytes(data), "not a valid tar.gz")

    def test_offset_before_the_file(self) -> None:
        """An index that points to before the file is damage, not an error of ours."""
        data = zip_archive(self.entries)
        end = data.rindex(b"PK\x05\x06")
        moved = data[: end + 16] + struct.pack("<L", 0xFFFFFF00) + data[end + 20 :]
        self.assertRefused("m.mar", moved, "not a valid zip")

    def test_missing(self) -> None:
        """An archive that cannot be read is our trouble, and leaves nothing behind."""
        error = self.assertRaises(InternalError, unpack, self.root / "gone.mar", self.target, SMALL)
        self.assertEqual(error.message, "Failed to read gone.mar: No such file or directory")
        self.assertEqual(list(self.root.iterdir()), [])


class DiskFullTests(UnpackTestCase):
    """A device on which every write fails because the disk is full."""

    def test_disk_full(self) -> None:
        """A full disk is an error of ours which names the archive."""
        with open("/dev/full", "wb", buffering=0) as full:
            error = self.assertRaises(InternalError, self._write, full)
        self.assertEqual(error.message, "Failed to save model: m.mar")

    def _write(self, file: io.FileIO) -> None:
        with Saving("m.mar"):
            write_all(file, b"data")

    def test_quota(self) -> None:
        """When the system refuses a file in the middle of an archive, nothing of the archive stays."""
        import resource
        import signal

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        archive = self.archive("m.mar", zip_archive([ArchiveEntry("a"), ArchiveEntry("b", os.urandom(9000))]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        try:
            error = self.assertRaises(InternalError, unpack, archive, self.target, SMALL)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        self.assertEqual((error.message, error.reason), ("Failed to save model: m.mar", "File too large"))
        self.assertEqual(getattr(error.__cause__, "errno", None), errno.EFBIG)
        self.assertEqual([path.name for path in self.root.iterdir()], ["m.mar"])


class NewTreeTests(UnpackTestCase):
    """Tests for `NewTree` in a directory that contains other files."""

    def test_no_link_is_followed(self) -> None:
        """A link that appears in the directory while it is filled is not written through."""
        self.target.mkdir()
        (self.root / "victim").write_bytes(b"safe")
        (self.target / "a").symlink_to(self.root / "victim")
        tree = NewTree(self.target, "m.mar", 100, 10)
        self.assertRaises(InternalError, tree.add_file, ("a",), [b"evil"])
        self.assertEqual((self.root / "victim").read_bytes(), b"safe")

    def test_limits_are_checked(self) -> None:
        """Limits that make no sense are refused with their name."""
        for name in ("max_size", "max_entries", "max_ratio"):
            error = self.assertRaises(ValueError, UnpackLimits, **{name: 0})
            self.assertIn(name, str(error))
