# SPDX-License-Identifier: Apache-2.0
"""Tests for archives that exist but cannot be read: the response names the operation and the error."""

from __future__ import annotations

import os
from unittest import SkipTest, mock

from twisted.internet.defer import Deferred

from tests.archives.test_store import MAR, StoreTestCase
from twisted_serve.archives.locating import Source
from twisted_serve.errors import InternalError, InvalidModel

# Of a user that owns nothing here.
_NOBODY = 65534


class UnreadableTests(StoreTestCase):
    """Tests for unreadable archives."""

    def refusal(self, url: str, source: Source = Source.CLIENT) -> str:
        opening = Deferred.fromCoroutine(self.store.open(url, source))
        error = self.failureResultOf(opening, InternalError).value
        self.assertEqual(error.status, 500)
        self.assertEqual(list(self.work.glob("models/*")), [])
        return error.message  # type: ignore[no-any-return]

    def become_nobody(self) -> None:
        """Drop root's privileges, which permissions do not restrict, if the tests have them."""
        self.root.chmod(0o755)
        if os.geteuid() == 0:
            os.seteuid(_NOBODY)
            self.addCleanup(os.seteuid, 0)
        try:
            os.listdir(self.root)
        except PermissionError:
            raise SkipTest("the temporary directory is not for everybody") from None

    def test_error_of_a_device(self) -> None:
        """An error in the middle of reading is reported as a read error."""
        (self.path / "m.mar").symlink_to("/proc/self/mem")
        self.assertEqual(self.refusal("m.mar"), "Failed to read m.mar: Input/output error")

    def test_permission(self) -> None:
        """A file without read permission is not reported as failed to save, nor such a directory as missing."""
        (self.path / "m.mar").write_bytes(MAR)
        (self.path / "m.mar").chmod(0)
        for name in ("directory", "closed", "half"):
            (self.path / name / "MAR-INF").mkdir(parents=True)
        (self.path / "closed/n.mar").write_bytes(MAR)
        (self.path / "half/MAR-INF/MANIFEST.json").write_text("{}")
        (self.path / "half/MAR-INF/MANIFEST.json").chmod(0)
        (self.path / "directory").chmod(0o311)
        (self.path / "closed").chmod(0)
        for name in ("directory", "closed"):
            self.addCleanup((self.path / name).chmod, 0o700)
        self.become_nobody()
        for source in (Source.CLIENT, Source.OPERATOR):
            self.assertEqual(self.refusal("m.mar", source), "Failed to read m.mar: Permission denied")
            self.assertEqual(self.refusal("directory", source), "Failed to read directory: Permission denied")
        self.assertEqual(self.refusal("closed/n.mar"), "Failed to read closed/n.mar: Permission denied")
        half = self.failureResultOf(Deferred.fromCoroutine(self.store.open("half")), InvalidModel).value
        self.assertIn("Permission denied", half.message)
        self.assertEqual(self.store.scan_all(), ("closed", "directory", "half", "m.mar"))

    def test_store(self) -> None:
        """A store that cannot be listed is named."""
        self.path.chmod(0o300)
        self.addCleanup(self.path.chmod, 0o700)
        self.become_nobody()
        error = self.assertRaises(InternalError, self.store.scan_all)
        self.assertEqual(error.message, f"Failed to read the model store {self.path}: Permission denied")

    def test_between_two_looks(self) -> None:
        """An archive that becomes unreadable before it is unpacked is reported with the same text."""
        (self.path / "m.mar").write_bytes(MAR)
        refused = PermissionError(13, "Permission denied")
        with mock.patch("twisted_serve.archives.unpack.open", create=True, side_effect=refused):
            self.assertEqual(self.refusal("m.mar"), "Failed to read m.mar: Permission denied")
