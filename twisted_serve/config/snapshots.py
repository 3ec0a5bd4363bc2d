# SPDX-License-Identifier: Apache-2.0
"""
Find the newest snapshot of a server, and the settings of it that are ignored.
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

#: The reason why a snapshot was taken.
Occasion: TypeAlias = Literal["startup", "snapshot", "shutdown"]

#: The setting that holds the models.
MODEL_SNAPSHOT = "model_snapshot"

#: Settings that no snapshot contains, and that are ignored in one: secrets, access control, and the interpreter.
NEVER_KEPT = SECRETS | {
    "disable_token_authorization",
    "enable_model_api",
    "python",
    "token_api_key_file",
    "token_inference_key_file",
    "token_management_key_file",
}

_NO_DECISION = "no snapshot decides on that"

# Settings that TorchServe detects and writes into every snapshot, whether the operator had set them or not.
_FOUND_BY_TORCHSERVE = {
    "number_of_gpu": "TorchServe has counted them on the machine that it ran on",
}
_PYTHON = "it is the interpreter of the server that wrote the snapshot; only a setting of the operator's counts"

_NAME = re.compile(r"([0-9]{14})([0-9]{3})-(?:startup|snapshot|shutdown)\.cfg", re.ASCII)

# At most this many names of files that are not snapshots are logged.
_MAX_SHOWN = 3


@frozen
class SnapshotPlan:
    """
    The directory and the content of a server's snapshots.

    :ivar settings: The settings in each snapshot besides the models, as text.
    """

    directory: Path
    settings: Mapping[str, str]


@frozen
class Found:
    """
    The content of the directory of snapshots.

    :ivar newest: The newest snapshot, or ``None``.
    :ivar strays: The names of other files, and of snapshots that another user may have written.
    """

    newest: Path | None
    strays: tuple[str, ...] = ()

    def remark(self) -> str | None:
        """Return a line for the log that names the ignored files, or ``None``."""
        if not self.strays:
            return None
        shown = ", ".join(map(repr, self.strays[:_MAX_SHOWN])) + (", …" if len(self.strays) > _MAX_SHOWN else "")
        return f"no snapshots, and ignored, are in the directory of snapshots: {shown}"


def snapshot_name(moment: datetime, occasion: Occasion) -> str:
    """Return the file name of a snapshot; names sort by time."""
    return f"{moment:%Y%m%d%H%M%S}{moment.microsecond // 1000:03}-{occasion}.cfg"


def snapshot_moment(name: str) -> datetime | None:
    """Return the local time at which a snapshot was taken, from its file name; ``None`` for any other file name."""
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
    Find the newest snapshot, by name.

    :raise ConfigError: when the directory cannot be read.
    """
    try:
        entries = sorted((entry.name, _is_trusted(entry)) for entry in os.scandir(directory))
    except FileNotFoundError:
        return Found(None)
    except OSError as e:
        raise ConfigError(f"snapshots cannot be looked for: {e.strerror}", place=str(directory)) from e
    found = [name for name, trusted in entries if trusted]
    strays = tuple(name for name, trusted in entries if not trusted)
    return Found(directory / found[-1] if found else None, strays)


def ignored(settings: Collection[str], by_name: bool = False) -> dict[str, str]:
    """
    Return the settings of a snapshot that are ignored, with the reasons.

    :param settings: The names of its settings.
    :param by_name: Whether the operator has named the snapshot as the configuration file: then its access control is
        effective, but the settings of another installation are ignored all the same.
    """
    reasons = {} if by_name else dict.fromkeys(NEVER_KEPT, _NO_DECISION)
    reasons["python"] = _PYTHON
    # Only TorchServe writes its version into a snapshot.
    if "version" in settings:
        reasons |= _FOUND_BY_TORCHSERVE
    return {key: reason for key, reason in sorted(reasons.items()) if key in settings}


def _is_trusted(entry: os.DirEntry[str]) -> bool:
    """
    Return whether a file is named like a snapshot, and cannot have been written by another user.

    The server runs the code of the models that a snapshot names.  So symbolic links, files of
    other users, and world-writable files are not accepted.
    """
    if snapshot_moment(entry.name) is None:
        return False
    status = entry.stat(follow_symlinks=False)
    ours = status.st_uid in (os.geteuid(), 0)
    return stat.S_ISREG(status.st_mode) and ours and not status.st_mode & stat.S_IWOTH
