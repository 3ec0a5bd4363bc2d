# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in the key file.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from tests.testing.planted.bug import Concern, Planted, replacing
from twisted_serve.auth import key_file, owner_files
from twisted_serve.auth.key_file import KeyFile, instant, render_keys
from twisted_serve.auth.tokens import KeySet

_save = KeyFile.save


def _leave(self: KeyFile) -> None:
    """Stop without removing the file."""
    self._removed = True
    self._close_descriptor()


def _save_part(self: KeyFile, keys: KeySet) -> None:
    """Lose the end of the file when it is written again."""
    existed = self.path.exists()
    _save(self, keys)
    if existed:
        os.truncate(self.path, 200)


def _save_twice(self: KeyFile, keys: KeySet) -> None:
    """Leave a copy beside the file."""
    _save(self, keys)
    self.path.with_name(f".{self.path.name}.copy").write_bytes(render_keys(keys))


def _save_for_all(self: KeyFile, keys: KeySet) -> None:
    """Widen the mode when the file is written again."""
    existed = self.path.exists()
    _save(self, keys)
    if existed:
        os.chmod(self.path, 0o640)


def _local_instant(moment: datetime) -> str:
    """Write a date in another time zone."""
    return instant(moment + timedelta(hours=1))


BUGS = (
    Planted(
        "file left behind at stop",
        Concern.FILE,
        r"key_file.json was left behind when the server stopped$",
        replacing(KeyFile, remove=_leave),
    ),
    Planted("file 0644", Concern.FILE, r"key_file.json has mode 0644$", replacing(owner_files, _OWNER_ONLY=0o644)),
    Planted(
        "file 0640 after a rotation",
        Concern.FILE,
        r"key_file.json has mode 0640$",
        replacing(KeyFile, save=_save_for_all),
    ),
    Planted("torn file", Concern.FILE, r"key_file.json is not whole: ", replacing(KeyFile, save=_save_part)),
    Planted(
        "copy beside the file",
        Concern.FILE,
        r"\.key_file\.json\.copy was left beside key_file\.json$",
        replacing(KeyFile, save=_save_twice),
    ),
    Planted(
        "file with the local time",
        Concern.FILE,
        r"key_file.json says that the management key expires at ",
        replacing(key_file, instant=_local_instant),
    ),
)
