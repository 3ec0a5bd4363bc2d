# SPDX-License-Identifier: Apache-2.0
"""
Build the command line of a server process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
