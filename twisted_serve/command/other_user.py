# SPDX-License-Identifier: Apache-2.0
"""
Act as the user that ``twistd`` changes to, before it does.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from twisted.python.util import runAsEffectiveUser

from twisted_serve.command.one_line import refuse

_P = ParamSpec("_P")
_T = TypeVar("_T")


def changes_user(twistd: Mapping[str, Any]) -> bool:
    """Return whether ``twistd`` will give up being root, according to its options."""
    return os.geteuid() == 0 and twistd.get("uid") is not None


def as_user(twistd: Mapping[str, Any], call: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """
    Call a function with the rights of the user that ``twistd`` will change to, if it will.

    The process can become root again, so the function must not run code of that user.

    :param twistd: The options of ``twistd``.
    :raise SystemExit: with one line, when there is no such user.
    """
    if not changes_user(twistd):
        return call(*arguments, **named)
    uid, gid = twistd["uid"], twistd.get("gid")
    try:
        found = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        refuse(f"--uid {uid} is no user of this system")
    result: _T = runAsEffectiveUser(uid, found.pw_gid if gid is None else gid, call, *arguments, **named)
    return result
