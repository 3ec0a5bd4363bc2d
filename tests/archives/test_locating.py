# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.locating`: links, paths of the operator, and what clients may name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.archives.test_store import MAR, StoreTestCase
from tests.threads import Threads
from twisted_serve.archives.locating import Remote, Source, StoreDirectory, StoreFile
from twisted_serve.archives.store import ModelArchive
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.errors import DownloadFailed, InvalidModel, ModelNotFound, ServeError

NOTHING = AllowedUrls(())


class LocatingTestCase(StoreTestCase):
    """A store, and a working directory with archives beside it."""

    def setUp(self) -> None:
        super().setUp()
        before = Path.cwd()
        os.chdir(self.root)
        self.addCleanup(os.chdir, before)
        (self.outside / "x.mar").write_bytes(MAR)
        (self.outside / "model/handler.py").touch()
        self.store = self.make_store(NOTHING)

    def of_operator(self, url: str) -> object:
        return self.store.locate(url, Source.OPERATOR)

    def open_as(self, url: str, source: Source) -> ModelArchive:
        return self.successResultOf(Deferred.fromCoroutine(self.store.open(url, source)))

    def refusal(self, url: str, source: Source = Source.CLIENT, kind: type[ServeError] = ModelNotFound) -> ServeError:
        return self.assertRaises(kind, self.store.locate, url, source)  # type: ignore[no-any-return]


class OperatorTests(LocatingTestCase):
    """What ``--models`` and ``load_models`` may name."""

    def test_last_component(self) -> None:
        """A path that is not in the store means the entry of the store with its last component, as in TorchServe."""
        (self.path / "a.mar").write_bytes(MAR)
        for path in ("store/a.mar", "./store/a.mar", "sub/a.mar", "/nowhere/a.mar", "../elsewhere/a.mar", "~/a.mar"):
            self.assertEqual(self.of_operator(path), StoreFile(self.path / "a.mar"), path)
        (self.path / "dir").mkdir()
        self.assertEqual(self.of_operator("models/dir/"), StoreDirectory(self.path / "dir"))
        self.assertEqual(self.open_as("store/a.mar", Source.OPERATOR).files.location, "a.mar")  # type: ignore[union-attr]

    def test_last_component_never_leaves_the_store(self) -> None:
        """There is no last component that is above the store, or the store."""
        for path in ("nowhere/..", "nowhere/.", "nowhere/%2e%2e", "..%2fnowhere/gone", "nowhere/../..", "/nowhere/.."):
            self.refusal(path, Source.OPERATOR)

    def test_store_first(self) -> None:
        """The path as it stands in the store is stronger than its last component, and that than a file elsewhere."""
        (self.path / "outside").mkdir()
        (self.path / "outside/x.mar").touch()
        self.assertEqual(self.of_operator("outside/x.mar"), StoreFile(self.path / "outside/x.mar"))
        (self.path / "x.mar").touch()
        self.assertEqual(self.of_operator(str(self.outside / "x.mar")), StoreFile(self.path / "x.mar"))

    def test_directory_first(self) -> None:
        """A directory elsewhere is stronger than a directory of the store with its name, as in TorchServe."""
        (self.path / "model").mkdir()
        self.assertEqual(self.of_operator("outside/model"), StoreDirectory(self.root / "outside/model"))
        self.assertEqual(self.of_operator("model"), StoreDirectory(self.path / "model"))

    def test_anywhere(self) -> None:
        """Files and directories outside the store are served: absolute, relative, climbing, by URL, by a link."""
        (self.root / "link.mar").symlink_to(self.outside / "x.mar")
        file, directory = self.outside / "x.mar", self.outside / "model"
        os.chdir(self.path)
        for path in (
            str(file),
            "../outside/x.mar",
            file.as_uri(),
            f"file://localhost{file}",
            str(self.root / "link.mar"),
        ):
            self.assertEqual(self.open_as(path, Source.OPERATOR).manifest.model_name, "m", path)
        for path in (str(directory), f"{directory}/", "../outside/model", directory.as_uri()):
            archive = self.open_as(path, Source.OPERATOR)
            self.assertEqual(os.path.realpath(archive.model_dir), os.path.realpath(directory), path)
        self.assertEqual(list(self.path.iterdir()), [])

    def test_home(self) -> None:
        """A tilde means the home directory; shells leave it alone after an equals sign."""
        self.patch(os, "environ", {**os.environ, "HOME": str(self.outside)})
        self.assertEqual(self.of_operator("~/x.mar"), StoreFile(self.outside / "x.mar"))

    def test_url(self) -> None:
        """A URL on the command line needs no ``allowed_urls``; a client's does."""
        self.assertEqual(self.of_operator("http://h/m.mar"), Remote("http://h/m.mar", "m.mar", trusted=True))
        self.refusal("http://h/m.mar")
        self.assertEqual(self.open_as("http://h/m.mar", Source.OPERATOR).manifest.model_name, "m")

    def test_not_a_url(self) -> None:
        """A URL that can lead nowhere, or misleads, is refused with the reason."""
        for url in ("http://h:aaaa/m.mar", "http://good@evil/m.mar", "file://host/m.mar"):
            error = self.refusal(url, Source.OPERATOR, DownloadFailed)
            self.assertEqual(error.message, f"Failed to download archive from: {url}")
            self.assertIn("the URL", str(error.reason).replace("a file: URL", "the URL"))
        self.refusal("s3://bucket/m.mar", Source.OPERATOR)

    def test_not_found(self) -> None:
        """The reason lists the paths that were tried, and the entry with the most similar name."""
        (self.path / "greet.mar").touch()
        error = self.refusal("gret.mar", Source.OPERATOR)
        self.assertEqual(error.message, "Model not found at: gret.mar")
        self.assertEqual(
            error.reason, f"there is no {self.path}/gret.mar; there is no {self.root}/gret.mar; did you mean greet.mar?"
        )

    @given(st.text())
    def test_any_text(self, url: str) -> None:
        """
        Any text refers to an archive or to nothing: an error in it is reported to the operator, and raises no other
        exception.
        """
        with contextlib.suppress(ServeError):
            self.assertIsInstance(self.store.locate(url, Source.OPERATOR), (StoreFile, StoreDirectory, Remote))


class SnapshotTests(LocatingTestCase):
    """A snapshot's location finds the same archive again, and no other."""

    def test_found_again(self) -> None:
        """Whatever was opened is found by its location."""
        (self.path / "a.mar").write_bytes(MAR)
        (self.outside / "y.mar").write_bytes(MAR)
        (self.root / "mounted").symlink_to(self.outside)
        self.store = self.make_store(AllowedUrls((f"file://{self.outside}/.*", f"{self.root}/mounted/.*")))
        client_directory = (self.outside / "model").as_uri()
        for url, source, location in (
            ("store/a.mar", Source.OPERATOR, "a.mar"),
            ("a.mar", Source.CLIENT, "a.mar"),
            ("outside/x.mar", Source.OPERATOR, str(self.root / "outside/x.mar")),
            ("outside/model", Source.OPERATOR, str(self.root / "outside/model")),
            ((self.outside / "y.mar").as_uri(), Source.CLIENT, "y.mar"),
            (client_directory, Source.CLIENT, client_directory),
            (str(self.outside / "model"), Source.CLIENT, client_directory),
            (f"{self.root}/mounted/model", Source.CLIENT, f"file://{self.root}/mounted/model"),
        ):
            archive = self.open_as(url, source)
            assert archive.files is not None
            self.assertEqual(archive.files.location, location, url)
            again = self.open_as(location, Source.SNAPSHOT)
            self.assertEqual(again.manifest, archive.manifest)

    def test_nothing_else(self) -> None:
        """A name means that entry: no last component, no path of the working directory, no URL that is not allowed."""
        (self.path / "x.mar").write_bytes(MAR)
        for url in ("sub/x.mar", "outside/x.mar", "../outside/x.mar", "http://h/m.mar", self.outside.as_uri()):
            self.refusal(url, Source.SNAPSHOT)


class ClientTests(LocatingTestCase):
    """What a registration request may name besides entries of the store."""

    def allowing(self, *patterns: str) -> None:
        self.store = self.make_store(AllowedUrls(patterns))

    def test_either_spelling(self) -> None:
        """A directory in ``allowed_urls``, as path or as URL, lets in both spellings, and no other directory."""
        for pattern in (f"{self.outside}/.*", f"file://{self.outside}/.*", f"file://localhost{self.outside}/.*"):
            self.allowing(pattern)
            for spelling in ("", "file://", "file:", "file://localhost"):
                directory, file = f"{spelling}{self.outside}/model", f"{spelling}{self.outside}/x.mar"
                self.assertEqual(self.store.locate(directory), StoreDirectory(self.outside / "model", links=False))
                located = self.store.locate(file)
                assert isinstance(located, Remote)
                self.assertEqual((located.basename, located.trusted), ("x.mar", False))
                for other in (f"{self.root}/other/x.mar", f"{self.outside}x/x.mar", f"{self.outside}/../store"):
                    self.refusal(spelling + other)
            for other in (f"http://h{self.outside}/x.mar", f"http:{self.outside}/x.mar", "outside/x.mar", "x.mar"):
                self.refusal(other)

    def test_file_by_path(self) -> None:
        """An archive that a client names by its path is copied into the store, like one by its URL."""
        self.allowing(f"{self.outside}/.*")
        self.assertEqual(self.downloaded(self.opened(str(self.outside / "x.mar"))), self.path / "x.mar")

    def test_escapes(self) -> None:
        """A path is what counts, and not how a URL writes it: no escape gets around an expression."""
        self.allowing(f"file://{self.outside}/(?!x).*")
        self.refusal(f"file://{self.outside}/%78.mar")
        self.refusal(f"{self.outside}/x.mar")
        (self.outside / "a b").mkdir()
        self.assertEqual(
            self.store.locate(f"file://{self.outside}/a%20b"), StoreDirectory(self.outside / "a b", links=False)
        )

    def test_link_out(self) -> None:
        """A link in an allowed directory that leads out of it is refused; one that stays is not."""
        allowed = self.root / "allowed"
        (allowed / "inner").mkdir(parents=True)
        (allowed / "y.mar").write_bytes(MAR)
        (allowed / "out.mar").symlink_to(self.outside / "x.mar")
        (allowed / "out").symlink_to(self.outside)
        (allowed / "loop").symlink_to("loop")
        (allowed / "in.mar").symlink_to("y.mar")
        (allowed / "in").symlink_to("inner")
        for pattern in (f"file://{allowed}/.*", f"{allowed}/.*"):
            self.allowing(pattern)
            for spelling in ("file://", ""):
                for out in ("out.mar", "out/x.mar", "out", "out/model", "out/model/"):
                    error = self.refusal(f"{spelling}{allowed}/{out}")
                    self.assertIn("a symbolic link in its path leads to what allowed_urls does not match", error.reason)
                self.assertEqual(self.store.locate(f"{allowed}/in"), StoreDirectory(allowed / "inner", links=False))
            self.assertEqual(self.downloaded(self.opened(f"{allowed}/in.mar")), self.path / "in.mar")
            (self.path / "in.mar").unlink()

    def test_allowed_directory_behind_a_link(self) -> None:
        """The directory that an expression names may itself lie behind a link: the operator has named it."""
        (self.root / "mounted").symlink_to(self.outside)
        (self.outside / "away").symlink_to(self.path)
        for pattern in (f"file://{self.root}/mounted/.*", f"http://h/|({self.root}/mounted/[a-z.]+)/?"):
            self.allowing(pattern)
            directory = self.store.locate(f"{self.root}/mounted/model")
            self.assertEqual(directory, StoreDirectory(self.outside / "model", links=False))
            self.refusal(f"{self.root}/mounted/away")

    def test_links_in_directory(self) -> None:
        """The manifest of a directory that a client names leads out of it by no link."""
        self.allowing(f"file://{self.outside}/.*")
        (self.outside / "model/MAR-INF").mkdir()
        (self.outside / "model/MAR-INF/MANIFEST.json").write_text('{"model": {"modelFile": "secret.py"}}')
        (self.outside / "model/secret.py").symlink_to(self.root / "secret.py")
        (self.root / "secret.py").touch()
        self.failureResultOf(Deferred.fromCoroutine(self.store.open((self.outside / "model").as_uri())), InvalidModel)

    def test_exchanged(self) -> None:
        """A file that becomes a link out between two looks is not read."""
        self.allowing(f"file://{self.outside}/.*")
        (self.root / "secret.mar").write_bytes(MAR)
        threads = Threads(holding=True)
        self.store = self.make_store(AllowedUrls((f"file://{self.outside}/.*",)), defer_to_thread=threads)
        opening = Deferred.fromCoroutine(self.store.open((self.outside / "x.mar").as_uri()))
        (self.outside / "x.mar").unlink()
        threads.work_once()
        (self.outside / "x.mar").symlink_to(self.root / "secret.mar")
        threads.work()
        self.failureResultOf(opening, DownloadFailed)
        self.assertEqual(self.left(), [])

    def test_remedy(self) -> None:
        """A refused URL's error contains the setting that would allow it; that setting does allow it."""
        for url in (
            "https://good.example:8443/a+b/m.mar?x=1",
            "http://[::1]:80/m.mar",
            "http://h",
            f"file://{self.outside}/model",
            f"file://{self.root}/a%20(b),%5Bc/m.mar",
            f"{self.root}/$x$/{{a}}/m.mar",
            "http://localhost:8080/a^b/m.mar",
        ):
            self.allowing()
            reason = str(self.refusal(url).reason)
            _, _, rest = reason.partition("allowed_urls=")
            value, _, would = rest.rpartition(" would")
            self.assertEqual(would, "", reason)
            self.assertNotIn(",", value)
            self.assertNotIn("\\", value)
            self.allowing(value)
            try:
                self.store.locate(url)
            except ServeError as e:
                self.assertNotIn("does not match any allowed URL(s)", e.message)
                self.assertNotIn("no path that is permitted", str(e.reason))
            self.refusal("https://goodxexample:8443/a+b/m.mar")

    def test_malformed(self) -> None:
        """A URL that an expression matches and that leads nowhere is a failed download, with the reason."""
        self.allowing(r"file://.*|http(s)?://.*")
        for url, reason in (
            ("http://localhost:aaaa", "Port could not be cast"),
            ("http://localhost:99999/m.mar", "Port out of range"),
            ("http://localhost:-1/m.mar", "Port"),
            ("http://localhost:0/m.mar", "the port 0"),
            ("http://[::1/m.mar", "Invalid IPv6 URL"),
            ("http:///m.mar", "no host"),
            ("http://:80/m.mar", "no host"),
            ("http://u:p@h/m.mar", "a user"),
            ("http://h/a b.mar", "a blank"),
            ("file://host/m.mar", "file:///path"),
            ("http://h/" + "x" * 9000, "8192"),
        ):
            error = self.refusal(url, kind=DownloadFailed)
            self.assertEqual(error.message, f"Failed to download archive from: {url}")
            self.assertIn(reason, str(error.reason))
        self.allowing()
        for url in ("http://localhost:aaaa", "http://u:p@h/m.mar"):
            error = self.refusal(url)
            self.assertEqual(error.message, f"Given URL {url} does not match any allowed URL(s)")
            self.assertNotIn("allowed_urls=", str(error.reason))

    @given(st.lists(st.sampled_from(["a", "out", "in", "..", ".", "", "x.mar", "%2e%2e", "model"]), max_size=5))
    def test_never_outside(self, parts: list[str]) -> None:
        """
        Whatever path a client names in an allowed directory with links in it, only files inside that directory are
        served.
        """
        with TemporaryDirectory() as name:
            root = Path(os.path.realpath(name))
            for directory in ("store", "allowed/a/model", "secret/model"):
                (root / directory).mkdir(parents=True)
            for file in ("allowed/x.mar", "secret/x.mar", "allowed/a/x.mar"):
                (root / file).touch()
            (root / "allowed/out").symlink_to(root / "secret")
            (root / "allowed/a/out").symlink_to("../../secret")
            (root / "allowed/in").symlink_to("a")
            allowed = AllowedUrls((f"{root}/allowed/.*",))
            store = self.make_store(allowed, root / "store")
            for spelling in ("", "file://"):
                try:
                    located = store.locate("/".join((f"{spelling}{root}/allowed", *parts)))
                except ServeError:
                    continue
                if isinstance(located, StoreDirectory):
                    self.assertEqual(located.path, Path(os.path.realpath(located.path)))
                    found = located.path
                else:
                    assert isinstance(located, Remote)
                    found = allowed.resolve(located.url.removeprefix("file://"))  # type: ignore[assignment]
                self.assertTrue(found.is_relative_to(root / "allowed"), str(found))
