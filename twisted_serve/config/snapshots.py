# SPDX-License-Identifier: Apache-2.0
"""
This module implements where snapshots are kept: the names of their files, the newest one, and what it may say.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import frozen

from twisted_serve.config.options import SECRETS
from twisted_serve.config.values import ConfigError

#: Why a snapshot was taken.
Occasion: TypeAlias = Literal["startup", "snapshot", "shutdown"]

#: The setting which holds the models.
MODEL_SNAPSHOT = "model_snapshot"

#: What no snapshot says, and what does not count in one: secrets, the switches of access, and the interpreter.
NEVER_KEPT = SECRETS | {"disable_token_authorization", "enable_model_api", "python"}

_NO_DECISION = "no snapshot decides on that"

# What TorchServe writes into every snapshot as it found it, whether the operator had said it or not.
_FOUND_BY_TORCHSERVE = {
    "number_of_gpu": "TorchServe has counted them on the machine that it ran on",
}
_PYTHON = "it is the interpreter of the server that wrote the snapshot; only a setting of the operator's counts"

_NAME = re.compile(r"([0-9]{14})([0-9]{3})-(?:startup|snapshot|shutdown)\.cfg", re.ASCII)

# So many names of files that are no snapshots are enough to see what they are.
_SHOWN = 3


@frozen
class SnapshotPlan:
    """
    Where a server keeps its snapshots.

    :ivar settings: What each of them says besides the models, as text.
    """

    directory: Path
    settings: Mapping[str, str]


@frozen
class Found:
    """
    What there is in the directory of snapshots.

    :ivar newest: ``None`` if there are none.
    :ivar strays: Other files, by name, and what looks like a snapshot and may be somebody else's.
    """

    newest: Path | None
    strays: tuple[str, ...] = ()

    def remark(self) -> str | None:
        """Say which files are no snapshots."""
        if not self.strays:
            return None
        shown = ", ".join(map(repr, self.strays[:_SHOWN])) + (", …" if len(self.strays) > _SHOWN else "")
        return f"no snapshots, and ignored, are in the directory of snapshots: {shown}"


def snapshot_name(moment: datetime, occasion: Occasion) -> str:
    """Name the file of a snapshot; names are in order of time."""
    return f"{moment:%Y%m%d%H%M%S}{moment.microsecond // 1000:03}-{occasion}.cfg"


def snapshot_moment(name: str) -> datetime | None:
    """Read in the name of a file when its snapshot was taken, in local time; ``None`` if it is the name of none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        whole = datetime.strptime(match[1], "%Y%m%d%H%M%S")  # noqa: DTZ007 (local time, as the name has it)
    except ValueError:
        return None
    return whole + timedelta(milliseconds=int(match[2]))


def find_snapshots(directory: Path) -> Found:
    """
    Look for the newest snapshot, by name.

    :raise ConfigError: when the directory cannot be read.
    """
    try:
        entries = sorted((entry.name, _can_be_one(entry)) for entry in os.scandir(directory))
    except FileNotFoundError:
        return Found(None)
    except OSError as e:
        raise ConfigError(f"snapshots cannot be looked for: {e.strerror}", place=str(directory)) from e
    found = [name for name, can_be_one in entries if can_be_one]
    strays = tuple(name for name, can_be_one in entries if not can_be_one)
    return Found(directory / found[-1] if found else None, strays)


def ignored(settings: Collection[str], by_name: bool = False) -> dict[str, str]:
    """
    List the settings of a snapshot that do not count, with the reasons.

    :param settings: The names of those that it has.
    :param by_name: Whether the operator has named the snapshot as the configuration file: then it decides who may
        come in, but what belongs to another installation is no more useful here.
    """
    reasons = {} if by_name else dict.fromkeys(NEVER_KEPT, _NO_DECISION)
    reasons["python"] = _PYTHON
    # TorchServe notes its version; this server does not.
    if "version" in settings:
        reasons |= _FOUND_BY_TORCHSERVE
    return {key: reason for key, reason in sorted(reasons.items()) if key in settings}


def _can_be_one(entry: os.DirEntry[str]) -> bool:
    """
    Say whether a file is called like a snapshot, and is one that nobody else can have made.

    What a snapshot names is run.  So a link is none, nor is a file of another user,
    or one that everybody can write to.
    """
    if snapshot_moment(entry.name) is None:
        return False
    status = entry.stat(follow_symlinks=False)
    ours = status.st_uid in (os.geteuid(), 0)
    return stat.S_ISREG(status.st_mode) and ours and not status.st_mode & stat.S_IWOTH
