# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.unpack`: archives that try to escape the directory or to fill the disk."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.archives.unpack_case import SMALL, UnpackTestCase, tree_of
from twisted_serve.archives.extraction import UnpackLimits, components
from twisted_serve.archives.unpack import unpack
from twisted_serve.errors import InvalidModel
from twisted_serve.testing.strategies.archives import (
    ArchiveEntry,
    EntryKind,
    archive_trees,
    hostile_names,
    safe_names,
    tar_archive,
    zip_archive,
)


class HostileTests(UnpackTestCase):
    """Tests for malicious archives."""

    def test_climbing(self) -> None:
        """An entry with ``..`` in its path is refused, also where it would end inside again."""
        for name in ("../evil", "a/../../evil", "a/../b", "../target/x", "../target-sibling/x"):
            with self.subTest(name):
                self.assertBothRefused([ArchiveEntry(name, b"x")], "unsafe name")
                (self.root / "m.tar.gz").unlink()

    def test_absolute(self) -> None:
        """An absolute path is refused, those of other systems too."""
        for name in ("/etc/cron.d/evil", "C:/evil", "\\\\host\\evil", "a\\..\\b"):
            with self.subTest(name):
                self.assertRefused("m.mar", zip_archive([ArchiveEntry(name, b"x")]), "unsafe name")
                self.assertRefused("m.mar", zip_archive([ArchiveEntry(name, b"x")]), "unsafe name")
                (self.root / "m.mar").unlink()
                self.assertRefused("m.tgz", tar_archive([ArchiveEntry(name, b"x")], top=None), "unsafe name")
                (self.root / "m.tgz").unlink()

    def test_nul_in_zip(self) -> None:
        """The name of an entry does not end at a NUL: it is refused."""
        data = zip_archive([ArchiveEntry("good.pyX../../x", b"x")]).replace(b"good.pyX", b"good.py\0")
        self.assertRefused("m.mar", data, "unsafe name")

    def test_links_and_devices(self) -> None:
        """Links of both kinds, FIFOs and devices are refused; nothing is written through them."""
        for kind in EntryKind:
            if kind in (EntryKind.FILE, EntryKind.DIRECTORY):
                continue
            with self.subTest(kind):
                entries = [ArchiveEntry("out", b"/tmp", kind), ArchiveEntry("out/evil", b"x")]
                self.assertBothRefused(entries, "neither a file nor a directory")
                (self.root / "m.tar.gz").unlink()

    def test_mode_of_another_kind(self) -> None:
        """A zip's directory that claims to be a file is refused."""
        info = zipfile.ZipInfo("d/")
        info.external_attr = (stat.S_IFREG | 0o700) << 16
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr(info, b"")
        self.assertRefused("m.mar", data.getvalue(), "neither a file nor a directory")

    def test_twice(self) -> None:
        """Two entries of one name are refused, however it is spelled: readers differ about which one counts."""
        self.assertBothRefused([ArchiveEntry("a", b"1"), ArchiveEntry("a", b"2")], "two entries named 'a'")
        (self.root / "m.tar.gz").unlink()
        self.assertBothRefused([ArchiveEntry("a/b", b"1"), ArchiveEntry("a/./b", b"2")], "two entries named 'a/b'")

    def test_file_and_directory(self) -> None:
        """A name that is a file and a directory is refused, in either order."""
        entries = [ArchiveEntry("a", b"1"), ArchiveEntry("a/b", b"2")]
        self.assertBothRefused(entries, "'a' both as a file and as a directory")
        (self.root / "m.tar.gz").unlink()
        self.assertBothRefused(entries[::-1], "'a' both as a file and as a directory")

    def test_nameless_file(self) -> None:
        """A file called ``.`` is refused."""
        self.assertRefused("m.mar", zip_archive([ArchiveEntry(".", b"1")]), "without a name")
        (self.root / "m.mar").unlink()
        self.assertRefused("m.mar", zip_archive([ArchiveEntry("", b"1")]), "unsafe name")

    def test_name_not_text(self) -> None:
        """A name that is not UTF-8 is refused."""
        data = tar_archive([ArchiveEntry("n\udcff", b"")], top="t")
        self.assertRefused("m.tgz", data, "not UTF-8")

    def test_long_names(self) -> None:
        """A name that no file system holds is refused as the archive's fault, not reported as ours."""
        self.assertBothRefused([ArchiveEntry("x" * 256)], "with a name of")
        (self.root / "m.tar.gz").unlink()
        self.assertBothRefused([ArchiveEntry("/".join(["x" * 100] * 30))], "with a name of")

    def test_depth(self) -> None:
        """A name with very many directories is refused; as many as no model has are taken."""
        self.assertBothRefused([ArchiveEntry("d/" * 64 + "x")], "more than 64 directories deep")
        (self.root / "m.tar.gz").unlink()
        self.assertBothRefused([ArchiveEntry("d/" * 1000 + "x")], "more than 64 directories deep")
        (self.root / "m.tar.gz").unlink()
        self.assertRefused("m.war", zip_archive([ArchiveEntry("d/" * 64 + "x")]), "more than 64 directories deep")
        deep = "d/" * 63 + "x"
        honest = zip_archive([ArchiveEntry("./" * 20 + deep, b"1")])
        self.assertEqual(self.unpacked("deep.mar", honest, UnpackLimits())[deep], b"1")

    def test_size_limit(self) -> None:
        """An archive that unpacks to more than allowed is refused by its declared and by its actual size."""
        limits = UnpackLimits(max_size=1000)
        self.assertBothRefused([ArchiveEntry("a", b"x" * 600), ArchiveEntry("b", b"x" * 600)], "1000 bytes", limits)

    def test_zip_lies_about_size(self) -> None:
        """A zip that declares less than it has does not get more written."""
        data = zip_archive([ArchiveEntry("a", b"x" * 5000)]).replace(struct.pack("<L", 5000), struct.pack("<L", 10))
        self.assertRefused("m.mar", data, "not a valid zip archive", UnpackLimits(max_size=1000))

    def test_ratio(self) -> None:
        """A bomb, small but growing without measure, is refused."""
        bomb = [ArchiveEntry("zeros", bytes(900_000))]
        self.assertBothRefused(bomb, "unpacks to more than")

    def test_ratio_leaves_small_archives_alone(self) -> None:
        """Weights of nothing but zeros are fine while they are small."""
        self.assertEqual(self.unpacked("m.mar", zip_archive([ArchiveEntry("z", bytes(60_000))])), {"z": bytes(60_000)})

    def test_overlapping_members(self) -> None:
        """An index with two entries for the same data is refused."""
        data = zip_archive([ArchiveEntry("a", bytes(30_000)), ArchiveEntry("b", bytes(30_000))])
        index = data.rindex(b"PK\x01\x02")
        overlapping = data[: index + 42] + struct.pack("<L", 0) + data[index + 46 :]
        self.assertRefused("m.mar", overlapping, "not a valid zip archive")

    def test_many_entries(self) -> None:
        """An archive with too many entries is refused."""
        self.assertBothRefused([ArchiveEntry(f"f{i}") for i in range(51)], "more than 50 entries")

    def test_many_directories(self) -> None:
        """Directories that a name only implies count as entries."""
        self.assertBothRefused([ArchiveEntry(f"{i}/" * 30 + "f") for i in range(2)], "more than 50 entries")

    def test_many_nothings(self) -> None:
        """Members of a tar that come to nothing count as entries."""
        entries = [ArchiveEntry(f"d{i}", kind=EntryKind.DIRECTORY) for i in range(60)]
        self.assertRefused("m.tgz", tar_archive(entries, top=None), "more than 50 entries")

    def test_huge_index(self) -> None:
        """The index of a zip is not read when it is larger than its entries could need."""
        data = zip_archive([ArchiveEntry(f"{i:0240}", b"") for i in range(2000)], zipfile.ZIP_STORED)
        self.assertRefused("m.mar", data, "index that is too large", UnpackLimits(max_entries=10))

    def test_huge_tar_header(self) -> None:
        """An extended header of a tar that is larger than any legitimate one is not read."""
        header = tarfile.TarInfo("././@LongLink")
        header.type = tarfile.GNUTYPE_LONGNAME
        header.size = 1 << 40
        data = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
        self.assertRefused("m.tgz", data, "header that is too large")

    def test_data_after_the_end(self) -> None:
        """What stands after the end of a tar is read for its checksum, and counts as well."""
        bomb = gzip.compress(gzip.decompress(tar_archive([ArchiveEntry("a")])) + bytes(2_000_000))
        self.assertRefused("m.tgz", bomb, "unpacks to more than")

    def test_sparse(self) -> None:
        """Sparse files, which are large without having data, are refused."""
        header = tarfile.TarInfo("m/sparse")
        header.type = tarfile.GNUTYPE_SPARSE
        self.assertRefused("m.tgz", gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)), "neither a file")

    def test_negative_size(self) -> None:
        """A member with a negative size does not make the reader loop."""
        header = bytearray(tarfile.TarInfo("m/f").tobuf(tarfile.GNU_FORMAT))
        header[124:136] = b"\xff" * 8 + struct.pack(">l", -1536)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        self.assertRefused("m.tgz", gzip.compress(bytes(header) + bytes(2048)), "members which overlap")

    def test_encrypted(self) -> None:
        """An encrypted entry is refused with its name."""
        data = bytearray(zip_archive([ArchiveEntry("secret.py", b"x")]))
        data[6] |= 1
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
        self.assertRefused("m.mar", bytes(data), "'secret.py' of the archive is encrypted")

    def test_compression(self) -> None:
        """Compressions other than the usual one are refused: they are only good for bombs."""
        self.assertRefused("m.mar", zip_archive([ArchiveEntry("a", b"x")], zipfile.ZIP_LZMA), "unknown compression")


class UnpackProperties(SynchronousTestCase):
    """Properties of all archives."""

    @given(archive_trees(), st.booleans())
    @settings(deadline=None)
    def test_writes_only_below_target(self, entries: list[ArchiveEntry], as_zip: bool) -> None:
        """Unpacking writes only below its target; a refused archive leaves nothing behind."""
        self.check(zip_archive(entries) if as_zip else tar_archive(entries), "m.mar" if as_zip else "m.tgz", entries)

    @given(
        archive_trees(), st.booleans(), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)
    )
    @settings(deadline=None)
    def test_damage(self, entries: list[ArchiveEntry], as_zip: bool, damage: list[tuple[int, int]]) -> None:
        """Whatever bytes an archive consists of: it unpacks below its target, or is refused and leaves nothing."""
        data = bytearray(zip_archive(entries) if as_zip else tar_archive(entries))
        if not as_zip:
            data = bytearray(gzip.decompress(data))
        for position, value in damage:
            data[position % len(data)] = value
        self.check(bytes(data) if as_zip else gzip.compress(data), "m.mar" if as_zip else "m.tgz", None)

    def check(self, data: bytes, name: str, entries: list[ArchiveEntry] | None) -> None:
        with TemporaryDirectory() as directory:
            root = Path(directory, "root")
            (root / "target-sibling").mkdir(parents=True)
            archive = root / name
            archive.write_bytes(data)
            before = tree_of(Path(directory))
            try:
                unpack(archive, root / "target", SMALL)
            except InvalidModel:
                self.assertEqual(tree_of(Path(directory)), before)
                return
            after = tree_of(Path(directory))
            self.assertEqual(
                {k: v for k, v in after.items() if not k.startswith("root/target/")}, before | {"root/target": None}
            )
            if entries is not None:
                files = [entry.content for entry in entries if entry.kind is EntryKind.FILE]
                written = [
                    content
                    for path, content in after.items()
                    if path.startswith("root/target/") and content is not None
                ]
                self.assertEqual(sorted(written), sorted(files))

    @given(st.lists(safe_names(), min_size=1, max_size=5, unique=True))
    @settings(deadline=None)
    def test_safe_names_are_accepted(self, names: list[str]) -> None:
        """A name without tricks in it is left as it is."""
        for name in names:
            self.assertEqual("/".join(components(name)), name)

    @given(hostile_names())
    def test_hostile_names_are_refused(self, name: str) -> None:
        """A name that leads outside the directory, or has hidden characters, is refused before anything is written."""
        self.assertRaises(InvalidModel, components, name)

    @given(st.integers(1, 1 << 40), st.integers(0, 1 << 40))
    def test_allowance(self, max_size: int, archive_size: int) -> None:
        """No archive may become larger than the limit, and every small one may grow freely."""
        limits = UnpackLimits(max_size=max_size, free_size=1000)
        self.assertLessEqual(limits.allowance(archive_size), max_size)
        self.assertGreaterEqual(limits.allowance(archive_size), min(max_size, 1000))
