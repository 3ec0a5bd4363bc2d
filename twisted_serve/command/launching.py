# SPDX-License-Identifier: Apache-2.0
"""
Build the command line and the environment of a server process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: The word of TorchServe's command line by which other programs, such as SageMaker's toolkit, recognise its process.
TORCHSERVE_WORD = "org.pytorch.serve.ModelServer"

# Without this option, ``-m`` would import modules from the directory in which the server starts.
_SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()


def server_command(words: Sequence[str], *, as_torchserve: bool = False) -> list[str]:
    """
    Return the command line of a server process with this interpreter and installation.

    :param words: The flags of ``twisted-serve``, ``--foreground`` among them or added.
    :param as_torchserve: Whether the command line contains `TORCHSERVE_WORD`; the word has no effect on the server.
    """
    named = ("--named", TORCHSERVE_WORD) if as_torchserve else ()
    foreground = () if "--foreground" in words else ("--foreground",)
    return [sys.executable, *_SAFE_PATH, "-m", "twisted_serve", *named, *foreground, *words]


def passed_sockets(environ: Path = Path("/proc/self/environ")) -> dict[str, str]:
    """
    Return the variables by which systemd has passed sockets to this process; Twisted removes them from `os.environ`.

    :param environ: The file with the environment that this process was started with.
    """
    said: dict[str, str] = {}
    with suppress(OSError):
        for variable in environ.read_bytes().split(b"\0"):
            name, _, value = os.fsdecode(variable).partition("=")
            if name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
                said[name] = value
    # Variables for another process, such as our parent, are not for us.
    return said if said.get("LISTEN_PID") == str(os.getpid()) else {}
