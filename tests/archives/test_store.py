# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.store`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.static import Data

from tests.threads import Threads
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.fetch import Fetcher, FetchLimits
from twisted_serve.archives.intake import Intake, OpenedArchive
from twisted_serve.archives.locating import Remote, StoreDirectory, StoreFile
from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.errors import DownloadFailed, InternalError, InvalidModel, ModelNotFound
from twisted_serve.testing.strategies.archives import (
    ArchiveEntry,
    hostile_names,
    model_entries,
    tar_archive,
    zip_archive,
)

ENTRIES = model_entries(
    {"handler.py": b"pass", "c.yaml": b"batchSize: 4\nBatchSize: 5"}, modelName="m", configFile="c.yaml"
)
MAR = zip_archive(ENTRIES)
DEFAULT = AllowedUrls((r"file://.*|http(s)?://.*",))


class StoreTestCase(SynchronousTestCase):
    """A test with a model store."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.path = self.root / "store"
        self.work = self.root / "work"
        self.outside = self.root / "outside"
        for new in (self.path, self.outside / "model"):
            new.mkdir(parents=True)
        self.work.mkdir(mode=0o700)
        self.site = Resource()
        self.site.putChild(b"m.mar", Data(MAR, "application/zip"))
        self.store = self.make_store()

    def make_store(
        self, allowed: AllowedUrls = DEFAULT, path: Path | str | None = "", defer_to_thread: Any = maybeDeferred
    ) -> ModelStore:
        fetcher = Fetcher(RequestTraversalAgent(self.site), Clock(), allowed, FetchLimits(), maybeDeferred)
        where = self.path if isinstance(path, str) else path
        return ModelStore(where, Intake(self.work, fetcher, UnpackLimits(), defer_to_thread))

    def opened(self, url: str) -> ModelArchive:
        return self.successResultOf(Deferred.fromCoroutine(self.store.open(url)))

    def downloaded(self, archive: ModelArchive) -> Path | None:
        return None if archive.files is None else archive.files.downloaded

    def left(self) -> list[str]:
        """List the files in the store and below the working directory."""
        return sorted(p.name for p in [*self.path.iterdir(), *self.work.glob("models/*")])


class LocateTests(StoreTestCase):
    """Tests for `ModelStore.locate`."""

    def assertNotFound(self, url: str, text: str, store: ModelStore | None = None) -> None:
        error = self.assertRaises(ModelNotFound, (store or self.store).locate, url)
        self.assertEqual(error.message, text.format(url))

    def test_not_configured(self) -> None:
        """Without a store nothing is found, not even what could be fetched."""
        store = self.make_store(path=None)
        for url in ("", "m.mar", "../x", "http://h/m.mar"):
            self.assertNotFound(url, "Model store has not been configured.", store)

    def test_order_of_refusals(self) -> None:
        """A URL that is empty, has a ``..`` component or is not allowed is refused, each with its text."""
        store = self.make_store(AllowedUrls(()))
        self.assertNotFound("", "empty url", store)
        self.assertNotFound("http://h/../m.mar", "Relative path is not allowed in url: {}", store)
        self.assertNotFound("http://h/m.mar", "Given URL {} does not match any allowed URL(s)", store)
        self.assertNotFound("m.mar", "Model not found at: {}", store)

    def test_files(self) -> None:
        """A name means a file or directory of the store, in its sub-directories too."""
        (self.path / "sub/dir").mkdir(parents=True)
        (self.path / "sub/x.mar").touch()
        (self.path / "a..b.mar").touch()
        (self.path / "alias.mar").symlink_to(self.path / "a..b.mar")
        self.assertEqual(self.store.locate("sub/x.mar"), StoreFile(self.path / "sub/x.mar"))
        self.assertEqual(self.store.locate("./sub/dir/"), StoreDirectory(self.path / "sub/dir"))
        self.assertEqual(self.store.locate("a..b.mar"), StoreFile(self.path / "a..b.mar"))
        self.assertEqual(self.store.locate("alias.mar"), StoreFile(self.path / "alias.mar"))
        self.assertEqual(self.store.locate(str(self.path / "sub")), StoreDirectory(self.path / "sub"))

    def test_not_by_base_name(self) -> None:
        """A path means that path, and not a file of the same base name at the top of the store."""
        (self.path / "x.mar").touch()
        store = self.make_store(AllowedUrls(()))
        for url in ("sub/x.mar", "/elsewhere/x.mar", "s3://bucket/x.mar"):
            self.assertNotFound(url, "Model not found at: {}", store)

    def test_outside(self) -> None:
        """Nothing outside of the store is served: by an absolute path, below a link, or by name of a sibling."""
        (self.outside / "x.mar").write_bytes(MAR)
        (self.path / "link").symlink_to(self.outside)
        (self.path / "dangling.mar").symlink_to(self.outside / "gone.mar")
        (self.path / "loop.mar").symlink_to(self.path / "loop.mar")
        store = self.make_store(AllowedUrls(()))
        (self.root / "store-sibling").mkdir()
        os.mkfifo(self.path / "fifo")
        for url in (
            str(self.outside / "model"),
            str(self.outside / "x.mar"),
            "link/model",
            "link/x.mar",
            "dangling.mar",
            "loop.mar",
            str(self.root / "store-sibling"),
            "/",
            ".",
            "./",
            str(self.path),
            "fifo",
            "nothing",
            "x\0.mar",
            "\ud800.mar",
            "x" * 300,
        ):
            with self.subTest(url):
                self.assertNotFound(url, "Model not found at: {}", store)
        self.assertNotFound("x/" * 3000, "Model not found at: " + "x/" * 2048 + "…", store)

    def test_climbing(self) -> None:
        """CVE-2024-35198: ``..`` is refused in any spelling before anything else is looked at."""
        (self.outside / "x.mar").write_bytes(MAR)
        for url in (
            "../outside/x.mar",
            "..",
            "a/../../outside/x.mar",
            "%2e%2e/outside/x.mar",
            "..%2Foutside/x.mar",
            "..\\outside\\x.mar",
            "%252e%252e%252foutside",
            f"file://{self.path}/../outside/x.mar",
            "http://h/a?b=/../m.mar",
        ):
            with self.subTest(url):
                self.assertNotFound(url, "Relative path is not allowed in url: {}")

    def test_remote(self) -> None:
        """An allowed URL is fetched to the last component of its path."""
        url = "http://h/a/m.mar?signature=x/y"
        self.assertEqual(self.store.locate(url), Remote(url, "m.mar"))
        self.assertEqual(self.store.locate("file:///models/m.mar"), Remote("file:///models/m.mar", "m.mar"))

    def test_remote_refused(self) -> None:
        """A URL that is not allowed is refused with TorchServe's text."""
        store = self.make_store(AllowedUrls((r"https://good\.example.*",)))
        for url in (
            "http://good.example/m.mar",
            "https://evil.example/?https://good.example/m.mar",
            "file:///etc/passwd",
            "HTTP://evil/m.mar",
        ):
            self.assertNotFound(url, "Given URL {} does not match any allowed URL(s)", store)

    def test_remote_without_name(self) -> None:
        """A URL without a usable file name as its last component is a failed download."""
        for url in ("http://h/", "http://h/models/.profile"):
            error = self.assertRaises(DownloadFailed, self.store.locate, url)
            self.assertEqual(error.message, f"Failed to download archive from: {url}")

    def test_greedy_expression(self) -> None:
        """An expression that matches plain names, too, does not turn them into downloads."""
        (self.path / "x.mar").touch()
        store = self.make_store(AllowedUrls((".*",)))
        self.assertEqual(store.locate("x.mar"), StoreFile(self.path / "x.mar"))
        self.assertNotFound("y.mar", "Model not found at: {}", store)

    def test_directory_by_file_url(self) -> None:
        """A directory outside of the store is served in place if its ``file:`` URL is allowed, and only then."""
        url = (self.outside / "model").as_uri()
        self.assertEqual(self.store.locate(url), StoreDirectory(self.outside / "model", links=False))
        self.assertNotFound(url, "Given URL {} does not match any allowed URL(s)", self.make_store(AllowedUrls(())))

    @given(st.one_of(hostile_names(), st.text()))
    def test_never_outside(self, url: str) -> None:
        """Whatever the name: it means something in the store, or nothing."""
        with TemporaryDirectory() as directory:
            root = Path(directory)
            (root / "store/a").mkdir(parents=True)
            try:
                located = self.make_store(AllowedUrls(()), root / "store").locate(url)
            except ModelNotFound:
                return
            assert isinstance(located, (StoreFile, StoreDirectory))
            self.assertTrue(located.path.resolve().is_relative_to((root / "store").resolve()))


class ScanTests(StoreTestCase):
    """Tests for `ModelStore.scan_all`."""

    def test_all(self) -> None:
        """Archives and directories are listed by name; hidden entries, workflows and other files are not."""
        for name in ("b.mar", "a.tar.gz", "c.model", "d.tgz", "notes.txt", ".hidden.mar", ".0123.part"):
            (self.path / name).touch()
        (self.path / "dir").mkdir()
        (self.path / ".git").mkdir()
        (self.path / "workflow/WAR-INF").mkdir(parents=True)
        (self.path / "workflow.war").touch()
        self.assertEqual(self.store.scan_all(), ("a.tar.gz", "b.mar", "c.model", "d.tgz", "dir"))

    def test_no_store(self) -> None:
        """Without a store the error has TorchServe's text."""
        error = self.assertRaises(ModelNotFound, self.make_store(path=None).scan_all)
        self.assertEqual(error.message, "Model store is not configured.")
        error = self.assertRaises(ModelNotFound, self.make_store(path=self.root / "gone").scan_all)
        self.assertEqual(error.message, f"Model store path is not found: {self.root}/gone")


class OpenTests(StoreTestCase):
    """Tests for `ModelStore.open`."""

    def test_mar(self) -> None:
        """An archive of the store is unpacked to a private directory, and read."""
        (self.path / "m.mar").write_bytes(MAR)
        archive = self.opened("m.mar")
        self.assertEqual((archive.url, archive.manifest.model_name, archive.config.batch_size), ("m.mar", "m", 4))
        self.assertIn("BatchSize", archive.warnings[0])
        assert archive.files is not None
        assert archive.files.lease is not None
        self.assertEqual(archive.files.lease.directory, archive.model_dir)
        self.assertIsNone(archive.files.downloaded)
        self.assertEqual(archive.model_dir.parent, self.work / "models")
        self.assertEqual(stat.S_IMODE(archive.model_dir.parent.stat().st_mode), 0o700)
        self.assertEqual((archive.model_dir / "handler.py").read_bytes(), b"pass")

    def test_tar(self) -> None:
        """So is a tar."""
        (self.path / "m.tar.gz").write_bytes(tar_archive(ENTRIES))
        self.assertEqual(self.opened("m.tar.gz").manifest.model_name, "m")

    def test_directory(self) -> None:
        """A directory is served in place, without a copy."""
        (self.path / "m").mkdir()
        (self.path / "m/handler.py").touch()
        archive = self.opened("m")
        self.assertEqual(archive.model_dir, self.path / "m")
        self.assertEqual(archive.files, OpenedArchive("m", "m", self.path / "m", links=True))
        self.assertEqual(list(self.work.iterdir()), [])

    def test_sagemaker_layout(self) -> None:
        """The only sub-directory of a directory is the model; that of a manifest is not."""
        (self.path / "m/inner").mkdir(parents=True)
        (self.path / "bare/MAR-INF").mkdir(parents=True)
        (self.path / "out").mkdir()
        (self.path / "out/link").symlink_to(self.outside)
        (self.outside / "client").mkdir()
        (self.outside / "client/link").symlink_to(self.outside / "model")
        self.assertEqual(self.opened("m").model_dir, self.path / "m/inner")
        self.assertEqual(self.opened("bare").model_dir, self.path / "bare")
        self.assertEqual(self.opened("out").model_dir, self.path / "out/link")
        allowed = self.opened((self.outside / "client").as_uri())
        self.assertEqual(allowed.model_dir, self.outside / "client")

    def test_remote(self) -> None:
        """An allowed URL is fetched into the store, and unpacked."""
        archive = self.opened("http://h/m.mar")
        self.assertEqual(self.downloaded(archive), self.path / "m.mar")
        self.assertEqual((self.path / "m.mar").read_bytes(), MAR)
        again = self.failureResultOf(Deferred.fromCoroutine(self.store.open("http://h/m.mar")), InternalError).value
        self.assertEqual(again.message, "Model file already exists m.mar")
        self.assertEqual((self.path / "m.mar").read_bytes(), MAR)

    def test_file(self) -> None:
        """So is a file of this machine."""
        (self.outside / "n.mar").write_bytes(MAR)
        self.assertEqual(self.downloaded(self.opened((self.outside / "n.mar").as_uri())), self.path / "n.mar")

    def assertRefused(self, url: str, kind: type[Exception] = InvalidModel) -> None:
        before = self.left()
        self.failureResultOf(Deferred.fromCoroutine(self.store.open(url)), kind)
        self.assertEqual(self.left(), before)

    def test_refused(self) -> None:
        """An archive that is no model leaves nothing behind: not unpacked, and not fetched."""
        bad = {
            "junk.mar": b"junk",
            "evil.mar": zip_archive([*ENTRIES, ArchiveEntry("../evil", b"x")]),
            "climbing.mar": zip_archive(model_entries({}, configFile="../../../store/secret.yaml")),
            "pip.mar": zip_archive(model_entries({}, requirementsFile="/etc/passwd")),
            "types.mar": zip_archive(model_entries({"c": b"batchSize: many"}, configFile="c")),
            "manifest.mar": zip_archive([ArchiveEntry("MAR-INF/MANIFEST.json", b"{")]),
        }
        for name, data in bad.items():
            with self.subTest(name):
                self.site.putChild(name.encode(), Data(data, "application/zip"))
                self.assertRefused(f"http://h/{name}")
                self.assertEqual(self.left(), [])
                (self.path / name).write_bytes(data)
                self.assertRefused(name)
                (self.path / name).unlink()

    def test_refused_directory(self) -> None:
        """A directory that is no model is left as it is."""
        (self.path / "m/MAR-INF").mkdir(parents=True)
        (self.path / "m/MAR-INF/MANIFEST.json").write_text("{")
        self.assertRefused("m")
        self.assertRefused("gone", ModelNotFound)

    def test_directory_goes_away(self) -> None:
        """A directory that is gone when it is looked into was not found."""
        (self.path / "m").mkdir()
        threads = Threads(holding=True)
        self.store = self.make_store(defer_to_thread=threads)
        opening = Deferred.fromCoroutine(self.store.open("m"))
        threads.work_once()
        (self.path / "m").rmdir()
        threads.work_once()
        self.assertEqual(self.failureResultOf(opening, ModelNotFound).value.message, "Model not found at: m")

    def test_nowhere_to_unpack(self) -> None:
        """If the working directory cannot be used, the error is ours."""
        (self.path / "m.mar").write_bytes(MAR)
        self.work.rmdir()
        self.assertRefused("m.mar", InternalError)
        self.work.write_bytes(b"")
        self.assertRefused("m.mar", InternalError)

    def test_cancelled(self) -> None:
        """Whenever opening is cancelled: when the threads are done, nothing is left."""
        for steps in range(3):
            with self.subTest(steps):
                threads = Threads(holding=True)
                self.store = self.make_store(defer_to_thread=threads)
                opening = Deferred.fromCoroutine(self.store.open("http://h/m.mar"))
                for _ in range(steps):
                    threads.work_once()
                if opening.called:
                    self.opened_and_discarded(opening, threads)
                    continue
                opening.cancel()
                self.failureResultOf(opening, CancelledError)
                while threads.held:
                    threads.work_once()
                self.assertEqual(self.left(), [])

    def opened_and_discarded(self, opening: Deferred[ModelArchive], threads: Threads) -> None:
        discarding = Deferred.fromCoroutine(self.store.discard(self.successResultOf(opening)))
        threads.work_once()
        self.successResultOf(discarding)
        self.assertEqual(self.left(), [])


class DiscardTests(StoreTestCase):
    """Tests for `ModelStore.discard`."""

    def test_fetched(self) -> None:
        """What was unpacked and fetched is deleted; doing it twice is harmless."""
        archive = self.opened("http://h/m.mar")
        for _ in range(2):
            self.successResultOf(Deferred.fromCoroutine(self.store.discard(archive)))
            self.assertEqual(self.left(), [])

    def test_keep_download(self) -> None:
        """The fetched file stays for the other versions which are made of it."""
        archive = self.opened("http://h/m.mar")
        self.successResultOf(Deferred.fromCoroutine(self.store.discard(archive, keep_download=True)))
        self.assertEqual(self.left(), ["m.mar"])

    def test_own_files(self) -> None:
        """The operator's own archives and directories stay."""
        (self.path / "own.mar").write_bytes(MAR)
        (self.path / "dir").mkdir()
        for url in ("own.mar", "dir"):
            self.successResultOf(Deferred.fromCoroutine(self.store.discard(self.opened(url))))
        self.assertEqual(self.left(), ["dir", "own.mar"])
