# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.key_file``, on a real directory: what it promises is about files.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.key_file import KeyFile, KeyFileInUse, instant, render_keys
from twisted_serve.auth.tokens import KeySet, TokenKind, fresh_keys, fresh_token
from twisted_serve.testing.strategies.tokens import aware_datetimes, key_sets

NOW = datetime(2024, 2, 16, 21, 12, 24, 801167, tzinfo=timezone.utc)


def some_keys(seed: int = 1) -> KeySet:
    return fresh_keys(Random(seed).randbytes, NOW, timedelta(hours=1))


class FormatTests(SynchronousTestCase):
    """Tests for what stands in the file."""

    def test_to_the_letter(self) -> None:
        """The file has the documented members, in their order, and no other."""
        keys = some_keys()
        self.assertEqual(
            render_keys(keys).decode(),
            "{\n"
            '  "management": {\n'
            f'    "key": "{keys.management.secret}",\n'
            '    "expiration time": "2024-02-16T22:12:24.801167Z"\n'
            "  },\n"
            '  "inference": {\n'
            f'    "key": "{keys.inference.secret}",\n'
            '    "expiration time": "2024-02-16T22:12:24.801167Z"\n'
            "  },\n"
            '  "API": {\n'
            f'    "key": "{keys.api.secret}"\n'
            "  }\n"
            "}",
        )

    @given(key_sets())
    def test_reads_back(self, keys: KeySet) -> None:
        """Whoever reads the file gets the keys and the instants of their expiry."""
        read = json.loads(render_keys(keys))
        self.assertEqual(list(read), ["management", "inference", "API"])
        for token in keys:
            self.assertEqual(read[token.kind.value]["key"], token.secret)
            if token.expires is not None:
                text = read[token.kind.value]["expiration time"]
                self.assertEqual(datetime.fromisoformat(text.replace("Z", "+00:00")), token.expires)

    @given(aware_datetimes())
    def test_instant(self, moment: datetime) -> None:
        """An instant is written in UTC, whatever zone it was in."""
        elsewhere = moment.astimezone(timezone(timedelta(hours=-7)))
        self.assertEqual(instant(elsewhere), instant(moment))
        self.assertRegex(instant(moment), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")


class KeyFileTests(SynchronousTestCase):
    """Tests for how the file comes, changes and goes."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.path = self.directory / "key_file.json"
        self.file = KeyFile(self.path)
        self.addCleanup(self.file.remove)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def test_saved(self) -> None:
        """Saved keys are in the file, and nothing else is in the directory."""
        self.file.save(some_keys())
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys()))
        self.assertEqual(self.left(), ["key_file.json"])

    def test_mode_from_the_first_byte(self) -> None:
        """Nobody else can read the file, before its first byte is written as after its last."""
        modes: list[int] = []
        real_fdopen = os.fdopen

        def watching(descriptor: int, mode: str) -> object:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
            self.assertEqual(os.fstat(descriptor).st_size, 0)
            return real_fdopen(descriptor, mode)

        old = os.umask(0)
        self.addCleanup(os.umask, old)
        with patch("os.fdopen", watching):
            self.file.save(some_keys())
        self.assertEqual(modes, [0o600])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_strict_umask(self) -> None:
        """The owner can read the file under any umask."""
        old = os.umask(0o777)
        self.addCleanup(os.umask, old)
        self.file.save(some_keys())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_link_is_not_followed(self) -> None:
        """A link in the place of the file is replaced; what it leads to is not touched."""
        victim = self.directory / "victim"
        victim.write_text("precious")
        self.path.symlink_to(victim)
        self.file.save(some_keys())
        self.assertEqual(victim.read_text(), "precious")
        self.assertFalse(self.path.is_symlink())
        self.file.remove()
        self.assertEqual(self.left(), ["victim"])

    def test_stale_file_is_replaced(self) -> None:
        """What a crashed server left behind is replaced, even if others could read it."""
        self.path.write_text("{}")
        self.path.chmod(0o644)
        self.file.save(some_keys())
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys()))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_atomic(self) -> None:
        """Who had the old file open goes on reading the old keys, whole."""
        self.file.save(some_keys(1))
        with self.path.open("rb") as reader:
            self.file.save(some_keys(2))
            self.assertEqual(reader.read(), render_keys(some_keys(1)))
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys(2)))

    def test_failed_save(self) -> None:
        """When a save fails, whenever it does, the old content stays and nothing is left over."""
        self.file.save(some_keys(1))
        for step in ("fsync", "replace", "fchmod"):
            full = OSError(errno.ENOSPC, "No space left on device")
            with patch(f"os.{step}", side_effect=full), self.assertRaises(OSError):
                self.file.save(some_keys(2))
            self.assertEqual(self.path.read_bytes(), render_keys(some_keys(1)))
            self.assertEqual(self.left(), ["key_file.json"])
        self.file.save(some_keys(3))
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys(3)))

    def test_no_directory(self) -> None:
        """A directory that is not there is an error which names the path."""
        with self.assertRaisesRegex(OSError, "nowhere"):
            KeyFile(self.directory / "nowhere" / "key_file.json").save(some_keys())

    def test_a_directory_in_its_place(self) -> None:
        """A directory in the place of the file is an error, and stays."""
        self.path.mkdir()
        with self.assertRaises(OSError):
            self.file.save(some_keys())
        self.assertEqual(self.left(), ["key_file.json"])

    def test_removed(self) -> None:
        """Removing leaves nothing; doing it twice, or never having saved, is harmless."""
        KeyFile(self.path).remove()
        self.file.save(some_keys())
        self.file.remove()
        self.file.remove()
        self.assertEqual(self.left(), [])

    def test_removed_for_good(self) -> None:
        """What is saved after the removal fails, and leaves nothing: the server stops."""
        self.file.save(some_keys(1))
        self.file.remove()
        with self.assertRaisesRegex(OSError, "the server stops"):
            self.file.save(some_keys(2))
        self.assertEqual(self.left(), [])

    def test_removed_during_a_save(self) -> None:
        """A file that is removed while a thread saves it, at whatever step, does not come back."""
        for step in ("fsync", "replace", "fchmod", "unlink", "lstat"):
            file = KeyFile(self.path)
            file.save(some_keys(1))
            real, entered, go = getattr(os, step), threading.Event(), threading.Event()

            def late(*args: Any, real: Any = real, entered: Any = entered, go: Any = go, **more: Any) -> Any:
                if threading.current_thread() is not threading.main_thread() and not entered.is_set():
                    entered.set()
                    go.wait(30)
                return real(*args, **more)

            failures: list[OSError] = []

            def save(file: KeyFile = file, failures: list[OSError] = failures) -> None:
                try:
                    file.save(some_keys(2))
                except OSError as e:
                    failures.append(e)

            with patch(f"os.{step}", late):
                saving = threading.Thread(target=save)
                saving.start()
                self.assertTrue(entered.wait(30))
                # Where the thread is at a step that the removal waits for, it goes on by itself.
                release = threading.Timer(0.05, go.set)
                release.start()
                file.remove()
                go.set()
                saving.join(30)
                release.join()
            self.assertEqual(self.left(), [], step)
            file.remove()
            self.assertEqual(self.left(), [], step)

    def test_already_gone(self) -> None:
        """A file which the operator has deleted is not missed; the next save brings it back."""
        self.file.save(some_keys(1))
        self.path.unlink()
        self.file.save(some_keys(2))
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys(2)))
        self.path.unlink()
        self.file.remove()

    def test_edited(self) -> None:
        """A copy which an editor has put in its place is still ours."""
        self.file.save(some_keys())
        copy = self.directory / "copy"
        copy.write_bytes(self.path.read_bytes() + b"\n")
        copy.replace(self.path)
        self.file.remove()
        self.assertEqual(self.left(), [])

    def test_someone_elses(self) -> None:
        """A file which somebody else has put there is not removed."""
        self.file.save(some_keys())
        self.path.unlink()
        self.path.write_text("not ours")
        self.file.remove()
        self.assertEqual(self.path.read_text(), "not ours")

    def test_second_server(self) -> None:
        """A second server is told that the file is in use; the first keeps it, and can go on rotating."""
        self.file.save(some_keys(1))
        second = KeyFile(self.path)
        with self.assertRaisesRegex(KeyFileInUse, "another running server"):
            second.save(some_keys(2))
        KeyFile(self.path).remove()
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys(1)))
        self.file.save(some_keys(3))
        with self.assertRaises(KeyFileInUse):
            second.save(some_keys(2))
        self.file.remove()
        second.save(some_keys(2))
        self.addCleanup(second.remove)
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys(2)))

    def test_file_taken_meanwhile(self) -> None:
        """A server whose file was deleted, and is another's by now, does not take it back."""
        self.file.save(some_keys(1))
        self.path.unlink()
        second = KeyFile(self.path)
        second.save(some_keys(2))
        self.addCleanup(second.remove)
        with self.assertRaises(KeyFileInUse):
            self.file.save(some_keys(3))
        self.file.remove()
        self.assertEqual(self.path.read_bytes(), render_keys(some_keys(2)))

    def test_another_users(self) -> None:
        """A file that only another user can read is not taken: its server may be running."""
        self.path.write_text("{}")
        with (
            patch("os.geteuid", return_value=os.geteuid() + 1),
            patch("twisted_serve.auth.key_file.os.open", self.refusing(os.open)),
            self.assertRaisesRegex(KeyFileInUse, "another user"),
        ):
            self.file.save(some_keys())
        self.assertEqual(self.path.read_text(), "{}")
        self.assertEqual(self.left(), ["key_file.json"])

    def refusing(self, real: Callable[..., int]) -> Callable[..., int]:
        """Open as a process that may not read what is at the path."""

        def opened(path: Path, *args: Any, **more: Any) -> int:
            if path == self.path:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *args, **more)

        return opened

    def test_fifo_does_not_block(self) -> None:
        """A pipe in the place of the file does not hang the start."""
        os.mkfifo(self.path)
        self.file.save(some_keys())
        self.assertTrue(self.path.is_file())

    def open_here(self) -> list[str]:
        """Return the open files in the directory; other threads of the process have descriptors, too."""
        found = []
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return [path for path in found if path.startswith(str(self.path.parent))]

    def test_no_descriptor_left(self) -> None:
        """Saving often and removing leaves no descriptor open."""
        with self.path.with_name("other").open("wb"):
            self.assertEqual(len(self.open_here()), 1)
        for seed in range(5):
            self.file.save(some_keys(seed))
        self.file.remove()
        self.assertEqual(self.open_here(), [])

    def test_rotation_is_written(self) -> None:
        """Only the replaced token's members change in the file."""
        keys = some_keys()
        self.file.save(keys)
        fresh = fresh_token(TokenKind.INFERENCE, Random(9).randbytes, NOW, timedelta(minutes=5))
        self.file.save(keys.replacing(fresh))
        read = json.loads(self.path.read_bytes())
        self.assertEqual(read["management"]["key"], keys.management.secret)
        self.assertEqual(read["inference"], {"key": fresh.secret, "expiration time": "2024-02-16T21:17:24.801167Z"})
