# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.fetch`: local files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from unittest import mock

from twisted.internet.defer import CancelledError

from tests.archives.fetch_case import FetchTestCase
from tests.threads import Threads
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.errors import InternalError


class FileTests(FetchTestCase):
    """Tests for archives on this machine."""

    def setUp(self) -> None:
        super().setUp()
        self.source = self.root / "a b.mar"
        self.source.write_bytes(b"archive")
        self.url = self.source.as_uri()

    def test_copied(self) -> None:
        """A file is copied into the store, private to the owner."""
        self.successResultOf(self.fetched(self.url))
        self.assertEqual(self.target.read_bytes(), b"archive")
        self.assertEqual(stat.S_IMODE(self.target.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.store), ["m.mar"])

    def test_climbing(self) -> None:
        """CVE-2024-35198: ``..`` in a ``file:`` URL is not allowed by an expression for another directory."""
        allowed = AllowedUrls((f"file://{self.store}/.*",))
        for climb in ("..", "%2e%2e", "%252e%252e", ".%2E"):
            self.assertFailed(f"file://{self.store}/{climb}/{self.source.name.replace(' ', '%20')}", allowed)

    def test_not_a_file(self) -> None:
        """What is missing, a directory, a device or a FIFO is a failed download; nothing waits for it."""
        os.mkfifo(self.root / "fifo")
        for path in (self.root / "gone", self.root, Path("/dev/zero"), self.root / "fifo"):
            self.assertFailed(path.as_uri())

    def test_too_large(self) -> None:
        """The limit of size holds here, too."""
        self.source.write_bytes(b"x" * 1001)
        self.assertFailed(self.url)

    def test_cancelled_in_thread(self) -> None:
        """A copy that a thread finishes after it was cancelled is removed."""
        for steps in (0, 1):
            threads = Threads(holding=True)
            fetching = self.fetched(self.url, self.fetcher(defer_to_thread=threads))
            for _ in range(steps):
                threads.work_once()
            self.assertNoResult(fetching)
            fetching.cancel()
            self.failureResultOf(fetching, CancelledError)
            threads.work_once()
            self.assertNothingLeft()

    def test_cancelled_after_publishing(self) -> None:
        """A file that is published after the wait was cancelled is removed."""
        threads = Threads(holding=True)
        fetching = self.fetched(self.url, self.fetcher(defer_to_thread=threads))
        threads.work_once()
        work, _ = threads.held[0]
        work()
        self.assertTrue(self.target.exists())
        threads.held[0] = (lambda: None, threads.held[0][1])
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        threads.work_once()
        self.assertNothingLeft()

    def test_no_hard_links(self) -> None:
        """Where the store has no hard links, a file still gets its name without replacing another's."""
        no_links = OSError(errno.EOPNOTSUPP, "no links here")
        with mock.patch("os.link", side_effect=no_links):
            self.successResultOf(self.fetched(self.url))
            self.assertEqual(self.target.read_bytes(), b"archive")
            self.assertEqual(os.listdir(self.store), ["m.mar"])
            self.target.write_bytes(b"theirs")
            threads = Threads(holding=True)
            self.target.unlink()
            fetching = self.fetched(self.url, self.fetcher(defer_to_thread=threads))
            threads.work_once()
            self.target.write_bytes(b"theirs")
            threads.work_once()
            self.failureResultOf(fetching, InternalError)
            self.assertEqual(self.target.read_bytes(), b"theirs")
            self.target.unlink()
            with mock.patch("os.replace", side_effect=no_links):
                self.failureResultOf(self.fetched(self.url), InternalError)
            self.assertNothingLeft()
