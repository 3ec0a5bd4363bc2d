# SPDX-License-Identifier: Apache-2.0
"""
Write ``key_file.json``, where the operator of a server finds its keys.

The format is exactly TorchServe's (``docs/torchserve/rest_api.md`` §16.4).  The
handling differs: the file is readable only by its owner from the first byte, it is
replaced atomically, no symbolic link is followed, and it is removed with the server,
unless the next start shall find it (``token_on_restart=keep``).
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from contextlib import suppress
from datetime import datetime, timezone
from errno import EACCES, ECANCELED, EEXIST
from pathlib import Path

from twisted_serve.auth.owner_files import drafting, open_unfollowed, sync_directory
from twisted_serve.auth.replacement import replacing
from twisted_serve.auth.tokens import KeySet, Token

#: In bytes.  A key file has about 400; no more than this is read of a file.
MAX_BYTES = 16384

# Attempts to lock before the file is removed without the lock: shutdown must not wait for another server.
_REMOVAL_ATTEMPTS = 50


def instant(moment: datetime) -> str:
    """Format an aware date as in the key file: ISO 8601, UTC, microseconds, ``Z``."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def describe_token(token: Token) -> dict[str, str]:
    """Return the members of a token in the key file and in the response to ``/token``."""
    if token.expires is None:
        return {"key": token.secret}
    return {"key": token.secret, "expiration time": instant(token.expires)}


def render_keys(keys: KeySet) -> bytes:
    """Render the content of a key file: the keys that the server has made."""
    made = {token.kind.value: describe_token(token) for token in keys if token.given is None}
    return json.dumps(made, indent=2).encode("ascii")


class KeyFileInUse(OSError):
    """The path belongs to another running server."""


class KeyFile:
    """
    The key file of one running server.

    A running server holds a lock on its file.  So a second server in the same
    directory gets an error instead of overwriting the file of the first, while a file
    left behind by a crashed server is replaced.  The check of the lock and the
    replacement are atomic among all servers that use `replacing`.

    :param kept: Whether `remove` leaves the file for the next start.
    """

    def __init__(self, path: Path, kept: bool = False) -> None:
        self.path = path.absolute()
        self._kept = kept
        self._descriptor: int | None = None
        self._own_key = b""
        self._removed = False
        # Excludes a save in a thread and the removal from each other; held for a rename, not while bytes are written.
        # Reentrant, because a signal handler may remove the file while it is being removed.
        self._lock = threading.RLock()

    def save(self, keys: KeySet) -> None:
        """
        Replace the file by one with these keys, atomically.

        :raise KeyFileInUse: when the file belongs to another running server.
        :raise OSError: when it cannot be written, naming the file.
        """
        try:
            self._replace(keys)
        except KeyFileInUse:
            raise
        except OSError as e:
            # Name the key file: the name of the temporary file would not help the operator.
            raise type(e)(e.errno, f"the key file cannot be written: {e.strerror}", str(self.path)) from e

    def _replace(self, keys: KeySet) -> None:
        with drafting(self.path, render_keys(keys)) as draft:
            fcntl.flock(draft.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The slow part is done: another server may be waiting for this lock.
            with replacing(self.path), self._lock:
                if self._removed:
                    raise OSError(ECANCELED, "the server stops", str(self.path))
                self._refuse_if_taken()
                draft.take_name()
                self._close_descriptor()
                self._descriptor = draft.descriptor
                # The one that is replaced most rarely, and is in the file.
                own = (token.encoded for token in (keys.api, keys.inference, keys.management) if token.given is None)
                self._own_key = next(own, b"")
        # The rename must survive a power failure, too.
        sync_directory(self.path)

    def remove(self) -> None:
        """
        Delete the file if it is still ours and not to be kept, and refuse later saves; idempotent.

        Harmless if the file was never written.  A save that runs in a thread meanwhile fails and leaves no file.
        """
        self._removed = True
        with self._lock:
            if self._descriptor is None or self._kept:
                return
        with suppress(OSError):
            try:
                with replacing(self.path, _REMOVAL_ATTEMPTS):
                    self._unlink_if_ours()
            except OSError:
                # The lock file may be impossible to create in a directory that still allows removal.
                self._unlink_if_ours()
        self._close()

    def end(self) -> None:
        """
        Remove the file, and release one that is kept: another server may take it; idempotent.

        A server that answers its last requests still holds a kept file, or a key that the next server replaces would go
        on opening the last one.
        """
        self.remove()
        self._close()

    def _close(self) -> None:
        with self._lock:
            self._close_descriptor()

    def _unlink_if_ours(self) -> None:
        with self._lock:
            if self._descriptor is not None and self._is_ours(self._descriptor):
                os.unlink(self.path)

    def _is_ours(self, descriptor: int) -> bool:
        """Return whether the path leads to the file we wrote, or to an edited copy of it."""
        with suppress(OSError):
            if os.path.samestat(os.lstat(self.path), os.fstat(descriptor)):
                return True
            return self._own_key != b"" and self._own_key in _read_bounded(self.path)
        return False

    def _refuse_if_taken(self) -> None:
        ours = self._descriptor
        if ours is not None and (self._is_ours(ours) or not os.path.lexists(self.path)):
            return
        try:
            other = open_unfollowed(self.path)
        except OSError:
            # A regular file that only another user can read may be locked; that cannot be found out. Anything
            # else that cannot be opened, such as a symbolic link, is replaced.
            if self._is_another_users():
                raise KeyFileInUse(EACCES, "the key file belongs to another user", str(self.path)) from None
            return
        try:
            # A shared lock, because NFS grants no exclusive lock on a file opened for reading.
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeyFileInUse(EEXIST, "the key file belongs to another running server", str(self.path)) from None
        finally:
            os.close(other)

    def _is_another_users(self) -> bool:
        """Return whether the path leads to a regular file of another user."""
        with suppress(OSError):
            status = os.lstat(self.path)
            return stat.S_ISREG(status.st_mode) and status.st_uid != os.geteuid()
        return False

    def _close_descriptor(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read_bounded(path: Path) -> bytes:
    descriptor = open_unfollowed(path)
    try:
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)
