# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.system.small_files``.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.system.small_files import SmallFile, read_small


class ReadSmallTests(SynchronousTestCase):
    """Tests for reading a small file."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "file"

    def test_read(self) -> None:
        """A file of up to the limit is read whole, also through a link."""
        self.path.write_bytes(b"abc")
        self.path.chmod(0o600)
        link = self.directory / "link"
        link.symlink_to(self.path)
        for path in (self.path, link):
            self.assertEqual(read_small(path, 3), SmallFile(b"abc", exposed=False))
        with self.assertRaisesRegex(OSError, "Larger than 2 bytes"):
            read_small(self.path, 2)

    def test_exposed(self) -> None:
        """It says whether other users than the owner's and the group's may read or write it."""
        self.path.write_bytes(b"abc")
        for mode, exposed in ((0o600, False), (0o660, False), (0o604, True), (0o602, True)):
            self.path.chmod(mode)
            self.assertIs(read_small(self.path, 9).exposed, exposed)

    def test_nothing_that_blocks(self) -> None:
        """A pipe, a device and a directory are refused, at once."""
        os.mkfifo(self.path)
        for path in (self.path, Path("/dev/zero"), self.directory):
            with self.assertRaisesRegex(OSError, "Not a regular file"):
                read_small(path, 9)
        with self.assertRaises(FileNotFoundError):
            read_small(self.directory / "none", 9)
