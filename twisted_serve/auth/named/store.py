# SPDX-License-Identifier: Apache-2.0
"""
Keep named keys in a file, which several servers of one user may share.

A change is a transaction on the file: lock it, read it again if another server has changed it, write the new one
beside it, sync, rename.  So no server loses the change of another, and a reader finds the old file or the new one.
All of it blocks, hence it is called in threads.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from errno import ELOOP
from pathlib import Path
from typing import Final, TypeAlias

from twisted_serve.auth.named.codec import Content, parse, render
from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.owner_files import drafting, open_unfollowed, sync_directory
from twisted_serve.auth.replacement import replacing

__all__ = ["MOST_BYTES", "Change", "KeyStore", "StoreError"]

#: In bytes: as many keys as there may be in a store, some 40 000. No more is read or written.
MOST_BYTES: Final = 16 * 1024 * 1024

#: Returns the keys as they shall be; may be called in any thread. What it raises ends the transaction.
Change: TypeAlias = Callable[[KeyRecords], KeyRecords]

# A file as it was at some moment: any write, rename or change of its mode makes another. None for no file.
_Signature: TypeAlias = tuple[int, ...] | None


class StoreError(Exception):
    """
    The file of named keys cannot be read, used or written; it is as it was.

    :ivar path: The file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"the file of named keys {str(path)!r}: {problem}")
        self.path = path


class KeyStore:
    """
    The file of named keys, and what it held when it was last read or written.

    Its methods may be called in several threads.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path.absolute()
        self._content = Content()
        # Of the content, and of what was last tried: a file that cannot be used is not tried each second.
        self._signature: _Signature = None
        self._tried: _Signature = None
        # The time of the file's last change, in nanoseconds.
        self._written = 0
        self._lock = threading.Lock()

    @property
    def records(self) -> KeyRecords:
        """The keys that the file held when it was last read or written."""
        return self._content.records

    def load(self) -> KeyRecords:
        """
        Read the file, if it has changed; there are no keys as long as there was no file.

        :raise StoreError: when it cannot be used, or is gone; `records` is as before.
        """
        with self._lock:
            self._refresh()
            return self.records

    def has_changed(self) -> bool:
        """Return whether the file is not as it was at the last call of `load` or `transaction`."""
        return self._present() != self._tried

    def transaction(self, change: Change) -> KeyRecords:
        """
        Change the keys, those included that another server has added, and return them when they are on the disk.

        Nothing is written when ``change`` returns its argument.

        :raise StoreError: when the file cannot be used or written; nothing has changed.
        """
        with self._lock:
            try:
                with replacing(self.path):
                    self._refresh()
                    changed = change(self.records)
                    if changed is not self.records:
                        self._write(changed)
            except OSError as e:
                raise StoreError(self.path, f"it cannot be written: {e.strerror}") from e
            return self.records

    def _present(self) -> _Signature:
        try:
            return _signature(os.lstat(self.path))
        except OSError:
            return None

    def _refresh(self) -> None:
        self._tried = self._present()
        try:
            descriptor = open_unfollowed(self.path)
        except FileNotFoundError:
            if self._signature is not None:
                raise StoreError(self.path, "it is gone; its keys stay valid until the server stops") from None
            if not self.path.parent.is_dir():
                raise StoreError(self.path, "there is no such directory") from None
            return
        except OSError as e:
            problem = "it is a symbolic link" if e.errno == ELOOP else f"it cannot be opened: {e.strerror}"
            raise StoreError(self.path, problem) from e
        try:
            status = os.fstat(descriptor)
            signature = _signature(status)
            if signature == self._signature:
                return
            self._refuse(status)
            # A file that is written meanwhile has another signature later.
            with os.fdopen(os.dup(descriptor), "rb") as opened:
                data = opened.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise StoreError(self.path, _TOO_LARGE)
            self._content = parse(data, self._content)
            self._signature = self._tried = signature
            self._written = status.st_mtime_ns
        except OSError as e:
            raise StoreError(self.path, f"it cannot be read: {e.strerror}") from e
        except ValueError as e:
            raise StoreError(self.path, str(e)) from e
        finally:
            os.close(descriptor)

    def _refuse(self, status: os.stat_result) -> None:
        """
        Refuse a file that another user could have written or read.

        :raise StoreError: with the reason.
        """
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(self.path, "it is no regular file")
        if status.st_uid != os.geteuid():
            raise StoreError(self.path, f"it belongs to the user with the number {status.st_uid}, not to the server's")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise StoreError(self.path, f"its mode is {mode:04o}, open to others than its owner: make it 0600")
        if status.st_size > MOST_BYTES:
            raise StoreError(self.path, _TOO_LARGE)

    def _write(self, records: KeyRecords) -> None:
        data, content = render(records, self._content)
        if len(data) > MOST_BYTES:
            raise StoreError(self.path, _TOO_LARGE)
        with drafting(self.path, data) as draft:
            # Later than the file before: its inode may be the next one's, within the same tick of the kernel's clock.
            written = os.fstat(draft.descriptor).st_mtime_ns
            later = max(written, self._written + 1)
            os.utime(draft.descriptor, ns=(later, later))
            draft.take_name()
            # After the rename, which may change it.
            signature = _signature(os.fstat(draft.descriptor))
        self._content = content
        self._signature = self._tried = signature
        self._written = later
        os.close(draft.descriptor)
        sync_directory(self.path)


_TOO_LARGE: Final = f"it has more than {MOST_BYTES} bytes, too many keys"


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
