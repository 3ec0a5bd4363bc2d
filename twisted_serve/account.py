# SPDX-License-Identifier: Apache-2.0
"""
Run what belongs to models as another user than the server (``worker_user``), and protect the server's memory.
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
from twisted_serve.prctl import DUMPABLE, set_attribute


@frozen
class Account:
    """
    A user and a group of this system, which models' code runs as.

    :ivar name: The user's name.
    """

    uid: int
    gid: int
    name: str
    home: str

    @classmethod
    def of(cls, said: str) -> Account:
        """
        Find a user, and a group if another than the user's own is named: ``user`` or ``user:group``.

        :raise ValueError: if there is no such user or group, it is root, or this process is not root's.
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
        """What an environment says of its user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def reactor(self, reactor: IServeReactor) -> IServeReactor:
        """Return a reactor whose processes are this user's."""
        return cast(IServeReactor, _Reactor(reactor, self))

    def may_read(self, tree: Path) -> None:
        """
        Let this user read a directory that the server has made, and nothing beside it.

        What stays root's cannot be exchanged for something else while root works with it.

        :raise OSError: if that is not possible.
        """
        os.chmod(tree.parent, 0o711)  # noqa: S103 - for the workers' user alone
        for place, _, files in os.walk(tree):
            os.chown(place, -1, self.gid, follow_symlinks=False)
            os.chmod(place, 0o750)  # noqa: S103 - for the workers' user alone
            for name in files:
                file = os.path.join(place, name)
                os.chown(file, -1, self.gid, follow_symlinks=False)
                os.chmod(file, 0o750 if os.stat(file).st_mode & 0o100 else 0o640)

    def may_write(self, tree: Path) -> None:
        """
        Give this user a directory that the server has made.

        :raise OSError: if that is not possible.
        """
        os.chmod(tree.parent, 0o711)  # noqa: S103 - for the workers' user alone
        for place, _, files in os.walk(tree, topdown=False):
            for name in [*files, "."]:
                os.chown(os.path.join(place, name), self.uid, self.gid, follow_symlinks=False)


class _Reactor:
    """A reactor that starts processes as another user."""

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
    Keep other processes of the same user from this one's memory, environment and descriptors.

    There is no core dump then, and no debugger but root's.  Programs that are started are not protected.
    """
    with suppress(OSError):
        set_attribute(DUMPABLE, 0)
