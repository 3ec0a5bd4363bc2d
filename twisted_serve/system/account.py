# SPDX-License-Identifier: Apache-2.0
"""
Run models' code as another user than the server (``worker_user``), and protect the server's memory.
"""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import IProcessTransport

from twisted_serve.interfaces import IServeReactor
from twisted_serve.system.prctl import DUMPABLE, set_attribute


@frozen
class Account:
    """
    The user and group of this system that models' code runs as.

    :ivar name: The user's name.
    """

    uid: int
    gid: int
    name: str
    home: str

    @classmethod
    def of(cls, said: str) -> Account:
        """
        Look up a user, or a user and a group other than the user's own: ``user`` or ``user:group``.

        :raise ValueError: if there is no such user or group, if it is root, or if this process does not run as root.
        """
        user, colon, group = said.partition(":")
        try:
            found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        except (KeyError, OverflowError):
            raise ValueError(f"worker_user is {said!r}: there is no user {user!r}") from None
        gid = found.pw_gid
        if colon:
            try:
                gid = (grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)).gr_gid
            except (KeyError, OverflowError):
                raise ValueError(f"worker_user is {said!r}: there is no group {group!r}") from None
        if found.pw_uid == 0 or gid == 0:
            raise ValueError(f"worker_user is {said!r}: models' code would run as root")
        if os.geteuid() != 0:
            raise ValueError(f"worker_user is {said!r}: only a server that is started by root can run workers so")
        return cls(found.pw_uid, gid, found.pw_name, found.pw_dir)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that name the user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def reactor(self, reactor: IServeReactor) -> IServeReactor:
        """Return a reactor that spawns processes as this user."""
        return cast(IServeReactor, _Reactor(reactor, self))

    def allow_read(self, tree: Path) -> None:
        """
        Allow this user to read a directory that the server has created, and nothing beside it.

        Root keeps the ownership, so that the user cannot replace a file while root works with it.

        :raise OSError: if the permissions cannot be changed.
        """
        os.chmod(tree.parent, 0o711)  # noqa: S103 - for the workers' user alone
        for place, _, files in os.walk(tree):
            os.chown(place, -1, self.gid, follow_symlinks=False)
            os.chmod(place, 0o750)  # noqa: S103 - for the workers' user alone
            for name in files:
                file = os.path.join(place, name)
                os.chown(file, -1, self.gid, follow_symlinks=False)
                os.chmod(file, 0o750 if os.stat(file).st_mode & 0o100 else 0o640)

    def allow_write(self, tree: Path) -> None:
        """
        Make this user the owner of a directory that the server has created.

        :raise OSError: if the owner cannot be changed.
        """
        os.chmod(tree.parent, 0o711)  # noqa: S103 - for the workers' user alone
        for place, _, files in os.walk(tree, topdown=False):
            for name in [*files, "."]:
                os.chown(os.path.join(place, name), self.uid, self.gid, follow_symlinks=False)


class _Reactor:
    """A reactor that spawns processes as another user."""

    def __init__(self, reactor: IServeReactor, account: Account) -> None:
        self._reactor = reactor
        self._spawn: Any = reactor.spawnProcess
        self._ids: dict[str, Any] = {"uid": account.uid, "gid": account.gid}

    def spawnProcess(self, *arguments: Any, **named: Any) -> IProcessTransport:
        """See `IReactorProcess`."""
        transport: IProcessTransport = self._spawn(*arguments, **named, **self._ids)
        return transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


def protect_memory() -> None:
    """
    Deny other processes of the same user access to this one's memory, environment and descriptors.

    This also disables core dumps, and debuggers except root's.  Programs that this process executes are not protected.
    """
    with suppress(OSError):
        set_attribute(DUMPABLE, 0)
