# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``key_file.json``, where the operator of a server finds its keys.

The format is the predecessor's to the letter (``docs/torchserve/rest_api.md`` §16.4).
What differs is how it comes and goes: it is readable by its owner alone from
the first byte, it changes from one whole state to the next, no symbolic link is
followed, and it disappears with the server.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import threading
from contextlib import suppress
from datetime import datetime, timezone
from errno import EACCES, ECANCELED, EEXIST
from pathlib import Path

from twisted_serve.auth.replacement import replacing
from twisted_serve.auth.tokens import KeySet, Token

_OWNER_ONLY = 0o600

# A key file has about 400 bytes.  What is longer is none, and is not read.
_LONGEST = 16384

# How often the lock is asked for before the file is removed without it: a stop must not wait for another server.
_REMOVAL_ATTEMPTS = 50


def instant(moment: datetime) -> str:
    """Write an aware date as the key file does: ISO 8601, UTC, microseconds, ``Z``."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def describe_token(token: Token) -> dict[str, str]:
    """Return the members of a token in the key file, and in the answer to ``/token``."""
    if token.expires is None:
        return {"key": token.secret}
    return {"key": token.secret, "expiration time": instant(token.expires)}


def render_keys(keys: KeySet) -> bytes:
    """Write the content of a key file."""
    return json.dumps({token.kind.value: describe_token(token) for token in keys}, indent=2).encode("ascii")


class KeyFileInUse(OSError):
    """The path belongs to another server which is running."""


class KeyFile:
    """
    The key file of one running server.

    While the server runs it holds a lock on the file, so that a second server in
    the same directory is told so instead of taking the file from the first, while
    what a crashed server left behind is replaced.  Whether it is held and the
    replacement are one step for all servers that use `replacing`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._descriptor: int | None = None
        self._api_key = b""
        self._removed = False
        # Between a save in a thread and the removal: held for a rename, not while bytes are written.
        # A signal handler may remove the file while it is being removed.
        self._step = threading.RLock()

    def save(self, keys: KeySet) -> None:
        """
        Make these the content of the file, completely or not at all.

        :raise KeyFileInUse: when the file is another running server's.
        :raise OSError: when it cannot be written, naming the file.
        """
        try:
            self._replace(keys)
        except KeyFileInUse:
            raise
        except OSError as e:
            # The name of the temporary file would tell the operator nothing.
            raise type(e)(e.errno, f"the key file cannot be written: {e.strerror}", str(self.path)) from e

    def _replace(self, keys: KeySet) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, _OWNER_ONLY)
        try:
            os.fchmod(descriptor, _OWNER_ONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(os.dup(descriptor), "wb") as content:
                content.write(render_keys(keys))
                content.flush()
                os.fsync(descriptor)
            # What takes time is done; another server may wait for the rest.
            with replacing(self.path), self._step:
                if self._removed:
                    raise OSError(ECANCELED, "the server stops", str(self.path))
                self._refuse_if_taken()
                os.replace(temporary, self.path)
                self._let_go()
                self._descriptor = descriptor
                self._api_key = keys.api.secret.encode()
        except BaseException:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        self._sync_directory()

    def remove(self) -> None:
        """
        Delete the file if it is still ours, for good; harmless when it was never written, or twice.

        A save that a thread is about in the meantime fails, and leaves nothing.
        """
        self._removed = True
        with self._step:
            if self._descriptor is None:
                return
        with suppress(OSError):
            try:
                with replacing(self.path, _REMOVAL_ATTEMPTS):
                    self._unlink_if_ours()
            except OSError:
                # A directory in which nothing can be created may still allow removal.
                self._unlink_if_ours()
        with self._step:
            self._let_go()

    def _unlink_if_ours(self) -> None:
        with self._step:
            if self._descriptor is not None and self._is_ours(self._descriptor):
                os.unlink(self.path)

    def _is_ours(self, descriptor: int) -> bool:
        """Say whether the path leads to what we wrote, or to an edited copy of it."""
        with suppress(OSError):
            if os.path.samestat(os.lstat(self.path), os.fstat(descriptor)):
                return True
            return self._api_key in _read_bounded(self.path)
        return False

    def _refuse_if_taken(self) -> None:
        ours = self._descriptor
        if ours is not None and (self._is_ours(ours) or not os.path.lexists(self.path)):
            return
        try:
            other = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            # Whether a file is locked that only its owner can read cannot be known; a link, say, is replaced.
            if self._is_another_users():
                raise KeyFileInUse(EACCES, "the key file belongs to another user", str(self.path)) from None
            return
        try:
            # A shared lock, because NFS gives no exclusive one to those that only read.
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeyFileInUse(EEXIST, "the key file belongs to another running server", str(self.path)) from None
        finally:
            os.close(other)

    def _is_another_users(self) -> bool:
        """Return whether the path leads to a file that was made under another user."""
        with suppress(OSError):
            status = os.lstat(self.path)
            return stat.S_ISREG(status.st_mode) and status.st_uid != os.geteuid()
        return False

    def _sync_directory(self) -> None:
        # The new name must survive a power cut too; where a directory cannot be synced, it need not be.
        with suppress(OSError):
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read_bounded(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(descriptor, _LONGEST)
    finally:
        os.close(descriptor)
