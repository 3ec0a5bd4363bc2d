# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.store``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys import digest, some_key
from tests.auth.test_replacement import Threads
from twisted_serve.auth.named.collection import KeyRecords, NameTakenError
from twisted_serve.auth.named.records import NamedKey
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.named.store import MOST_BYTES, Change, KeyStore, StoreError


def adding(name: str) -> Change:
    """Return the change that adds a key."""
    return lambda records: records.adding(some_key(name))


def names_of(records: KeyRecords) -> list[str]:
    """Return the names of keys."""
    return [record.name for record in records]


class StoreCase(SynchronousTestCase):
    """A directory with the file of named keys."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.path = self.directory / "keys.json"
        self.store = KeyStore(self.path)

    def files(self) -> list[str]:
        """Return the names of all files in the directory."""
        return sorted(os.listdir(self.directory))

    def assert_refused(self, text: str, call: Callable[[], object]) -> None:
        """Assert that a call fails with an error which names the file and the problem, on one line."""
        with self.assertRaises(StoreError) as raised:
            call()
        self.assertIn(text, str(raised.exception))
        self.assertIn(repr(str(self.path)), str(raised.exception))
        self.assertEqual(raised.exception.path, self.path)
        self.assertTrue(str(raised.exception).isprintable())


class TransactionTests(StoreCase):
    """Tests for changes of the file."""

    def test_first(self) -> None:
        """There are no keys before the first change, and no file; the file is its owner's alone."""
        self.assertEqual(names_of(self.store.load()), [])
        self.assertEqual(self.files(), [])
        old = os.umask(0)
        try:
            self.assertEqual(names_of(self.store.transaction(adding("a"))), ["a"])
        finally:
            os.umask(old)
        self.assertEqual(self.files(), ["keys.json"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(KeyStore(self.path).load(), self.store.records)

    def test_shared(self) -> None:
        """A change keeps what another server has changed, and each server finds the other's changes."""
        other = KeyStore(self.path)
        self.store.transaction(adding("a"))
        self.assertTrue(other.has_changed())
        self.assertEqual(names_of(other.transaction(adding("b"))), ["a", "b"])
        self.assertFalse(other.has_changed())
        self.assertTrue(self.store.has_changed())
        self.assertEqual(names_of(self.store.records), ["a"])
        kept = self.store.records.of("a")
        self.assertEqual(names_of(self.store.load()), ["a", "b"])
        self.assertIs(self.store.records.of("a"), kept)
        self.assertFalse(self.store.has_changed())
        other.transaction(lambda records: records.without("a"))
        self.assertEqual(names_of(self.store.transaction(adding("c"))), ["b", "c"])

    def test_no_change(self) -> None:
        """A change that returns its argument writes nothing; one that raises, neither."""
        self.store.transaction(adding("a"))
        before = self.path.stat()
        self.store.transaction(lambda records: records)
        self.assertRaises(NameTakenError, self.store.transaction, adding("a"))
        self.assertEqual(self.path.stat(), before)
        self.assertEqual(self.files(), ["keys.json"])
        self.assertEqual(names_of(self.store.transaction(adding("b"))), ["a", "b"])

    def test_edited_in_place(self) -> None:
        """A file that was edited in place, to the same size, has changed."""
        self.store.transaction(adding("a"))
        with self.path.open("r+b") as opened:
            data = opened.read().replace(b'"disabled":false,"rate":null', b'"disabled":true ,"rate":null')
            opened.seek(0)
            opened.write(data)
        self.assertTrue(self.store.has_changed())
        self.assertTrue(self.store.load().of("a").disabled)

    def test_always_later(self) -> None:
        """Each file is later than the one before, whatever the clock says: a change of the same size is seen, too."""
        self.store.transaction(adding("a"))
        future = self.path.stat().st_mtime_ns + 10**15
        os.utime(self.path, ns=(future, future))
        other = KeyStore(self.path)
        other.load()
        for number in range(1, 4):
            self.store.transaction(lambda records: records.replacing(evolve(records.of("a"), rate=number)))  # noqa: B023
            self.assertEqual(self.path.stat().st_mtime_ns, future + number)
            self.assertTrue(other.has_changed())
            self.assertEqual(other.load().of("a").rate, number)

    def test_threads(self) -> None:
        """Threads of two servers that add keys at the same time lose none."""
        stores = [KeyStore(self.path), KeyStore(self.path)]
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for each in range(10):
                    stores[number % 2].transaction(adding(f"key-{number}-{each}"))
            except BaseException as e:
                failed.append(e)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(failed, [])
        wanted = {f"key-{number}-{each}" for number in range(4) for each in range(10)}
        self.assertEqual(set(names_of(KeyStore(self.path).load())), wanted)
        self.assertEqual(self.files(), ["keys.json"])

    @given(st.integers(0, 2**32))
    def test_interleaved(self, seed: int) -> None:
        """However the steps of three servers interleave, no change is lost, and a reader finds a whole file."""
        for name in self.files():
            os.unlink(self.directory / name)
        KeyStore(self.path).transaction(adding("first"))
        random = Random(seed)
        writers = [partial(KeyStore(self.path).transaction, adding(name)) for name in "abc"]
        found: list[list[str]] = []
        readers = [lambda: found.append(names_of(KeyStore(self.path).load()))]
        Threads(random.randrange).run([*writers, *readers])  # type: ignore[list-item]
        self.assertEqual(sorted(names_of(KeyStore(self.path).load())), ["a", "b", "c", "first"])
        self.assertEqual(found[0][0], "first")
        self.assertEqual(self.files(), ["keys.json"])


class HostileFileTests(StoreCase):
    """Tests for files that are not as the server writes them: each is refused, and stays as it is."""

    def assert_untouched(self, text: str) -> None:
        """Assert that the file can neither be read nor changed."""
        before = self.path.lstat()
        for store in (KeyStore(self.path), self.store):
            self.assert_refused(text, store.load)
            self.assertFalse(store.has_changed())
            self.assert_refused(text, lambda store=store: store.transaction(adding("b")))  # type: ignore[misc]
            self.assertFalse(store.has_changed())
        after = self.path.lstat()
        self.assertEqual((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns))
        self.assertEqual([name for name in self.files() if name != "elsewhere"], ["keys.json"])

    def test_torn(self) -> None:
        """A torn file is refused; the keys read before stay, and count again when the file is whole."""
        self.store.transaction(adding("a"))
        whole = self.path.read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 3):
            self.path.write_bytes(whole[:length])
            self.assert_untouched("it is no JSON object")
            self.assertEqual(self.path.read_bytes(), whole[:length])
            self.assertEqual(names_of(self.store.records), ["a"])
        self.path.write_bytes(whole)
        self.assertTrue(self.store.has_changed())
        self.assertEqual(names_of(self.store.transaction(adding("b"))), ["a", "b"])

    def test_newer(self) -> None:
        """A file of a newer version is refused."""
        self.path.write_bytes(b'{"format": 2, "vault": {}}')
        self.path.chmod(0o600)
        self.assert_untouched("format is 2, which another version has written; this one reads 1")

    def test_unknown_scope(self) -> None:
        """An error in a key names the key and the value, on one line."""
        self.store.transaction(adding("a"))
        self.path.write_bytes(self.path.read_bytes().replace(b'"inference"', rb'"inference", "\nAUDIT all is well"'))
        self.assert_untouched(r"key 'a': '\nAUDIT all is well' is no scope")

    def test_readable_by_others(self) -> None:
        """A file that others may read or write is refused; it has changed when its mode is right."""
        self.store.transaction(adding("a"))
        for mode in (0o640, 0o604, 0o620, 0o601, 0o666):
            self.path.chmod(mode)
            self.assert_untouched(f"its mode is {mode:04o}, open to others than its owner: make it 0600")
        self.path.chmod(0o400)
        self.assertEqual(names_of(KeyStore(self.path).load()), ["a"])

    def test_another_users(self) -> None:
        """A file of another user is refused, whatever the server may do with it."""
        self.store.transaction(adding("a"))
        with patch("os.geteuid", return_value=os.geteuid() + 1):
            self.path.chmod(0o400)
            self.assert_untouched(f"it belongs to the user with the number {os.getuid()}, not to the server's")

    def test_link(self) -> None:
        """A symbolic link is refused, also one to nowhere; what it leads to is neither read nor replaced."""
        elsewhere = self.directory / "elsewhere"
        self.path.symlink_to(elsewhere)
        self.assert_untouched("it is a symbolic link")
        KeyStore(elsewhere).transaction(adding("a"))
        self.assert_untouched("it is a symbolic link")
        self.assertEqual(names_of(KeyStore(elsewhere).load()), ["a"])

    def test_no_file(self) -> None:
        """A pipe, which would block a reader, and a directory are refused."""
        os.mkfifo(self.path, 0o600)
        self.assert_untouched("it is no regular file")
        self.path.unlink()
        self.path.mkdir(0o700)
        self.assert_untouched("it is no regular file")

    def test_huge(self) -> None:
        """A file larger than any store is refused before it is read."""
        self.path.touch(0o600)
        os.truncate(self.path, 1 << 40)
        self.assert_untouched(f"it has more than {MOST_BYTES} bytes, too many keys")

    def test_grows_while_read(self) -> None:
        """Of a file that grows while it is read no more is read than of any other."""
        self.path.touch(0o600)
        os.truncate(self.path, 1 << 40)
        real = os.fstat

        def small(descriptor: int) -> os.stat_result:
            status = list(real(descriptor))
            status[6] = 10
            return os.stat_result(status)

        with patch("os.fstat", small):
            self.assert_refused(f"it has more than {MOST_BYTES} bytes", self.store.load)

    def test_too_many(self) -> None:
        """A change that would make the file too large to read is refused."""
        self.store.transaction(adding("a"))
        scopes = KeyScopes(("inference:" + "a" * 256,) * 60)
        many = [NamedKey(f"key-{n}", digest(str(n)), scopes, some_key().created) for n in range(1100)]
        self.assert_refused("too many keys", lambda: self.store.transaction(lambda records: KeyRecords(many)))
        self.assertEqual(names_of(self.store.records), ["a"])
        self.assertEqual(names_of(KeyStore(self.path).load()), ["a"])
        self.assertEqual(self.files(), ["keys.json"])


class FailureTests(StoreCase):
    """Tests for what the operating system refuses: nothing is lost, and nothing is left."""

    def test_gone(self) -> None:
        """A file that was deleted is not written anew with fewer keys: its keys stay, until it is put back."""
        self.store.transaction(adding("a"))
        saved = self.path.rename(self.directory / "saved")
        self.assertTrue(self.store.has_changed())
        self.assert_refused("it is gone", self.store.load)
        self.assertFalse(self.store.has_changed())
        self.assert_refused("it is gone", lambda: self.store.transaction(adding("b")))
        self.assertEqual(self.files(), ["saved"])
        self.assertEqual(names_of(self.store.records), ["a"])
        saved.rename(self.path)
        self.assertTrue(self.store.has_changed())
        self.assertEqual(names_of(self.store.transaction(adding("b"))), ["a", "b"])

    def test_no_directory(self) -> None:
        """Without its directory a store is refused at the start already."""
        self.store.transaction(adding("a"))
        shutil.rmtree(self.directory)
        self.assert_refused("there is no such directory", KeyStore(self.path).load)
        self.assert_refused("it is gone", self.store.load)
        self.assert_refused("No such file or directory", lambda: self.store.transaction(adding("b")))
        self.assertEqual(names_of(self.store.records), ["a"])

    def test_each_call(self) -> None:
        """Whichever call fails, the file, the keys in memory and the directory are as before, and a retry succeeds."""
        self.store.transaction(adding("a"))
        calls: list[tuple[object, str, int]] = [
            *(
                (os, name, nth)
                for name in ("open", "fstat", "fdopen", "fsync", "replace", "fchmod", "utime")
                for nth in (1, 2)
            ),
            (fcntl, "flock", 1),
        ]
        failures = 0
        for number, (module, name, nth) in enumerate(calls):
            before = self.path.read_bytes()
            kept = self.store.records
            with patch.object(module, name, failing(getattr(module, name), nth)):
                try:
                    self.store.transaction(adding(f"key-{number}"))
                except StoreError as e:
                    self.assertIn("No space left on device", str(e))
                    failures += 1
                else:
                    continue
            self.assertEqual(self.path.read_bytes(), before, name)
            self.assertIs(self.store.records, kept, name)
            self.assertEqual(self.files(), ["keys.json"], name)
            self.store.transaction(adding(f"key-{number}"))
        self.assertGreaterEqual(failures, 8)
        self.assertEqual(len(KeyStore(self.path).load()), 1 + len(calls))

    def test_open_files(self) -> None:
        """Neither success nor failure leaves a file open."""
        self.store.transaction(adding("a"))
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for number in range(5):
            self.store.transaction(adding(f"key-{number}"))
            KeyStore(self.path).load()
            self.assertRaises(NameTakenError, self.store.transaction, adding("a"))
            with patch("os.replace", side_effect=OSError(errno.ENOSPC, "No space left on device")):
                self.assertRaises(StoreError, self.store.transaction, adding("b"))
        after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        self.assertEqual(after, before)

    def test_changed_meanwhile(self) -> None:
        """A key that another server has revoked is not written back by a change of another one."""
        self.store.transaction(adding("a"))
        self.store.transaction(adding("b"))
        KeyStore(self.path).transaction(lambda records: records.without("a"))
        self.store.transaction(lambda records: records.replacing(evolve(records.of("b"), rate=5)))
        self.assertEqual(names_of(KeyStore(self.path).load()), ["b"])


def failing(real: Callable[..., object], nth: int) -> Callable[..., object]:
    """Return a function whose ``nth`` call fails as on a full disk."""
    left = [nth]

    def call(*args: object, **more: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **more)

    return call
