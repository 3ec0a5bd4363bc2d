# SPDX-License-Identifier: Apache-2.0
"""
Set attributes of this process that only Linux has (``prctl(2)``).
"""

from __future__ import annotations

import ctypes
import sys

#: The signal that the process gets when its parent dies.
PARENT_DEATH_SIGNAL = 1
#: Whether the process can be traced by its own user and can dump core; 0 for neither.
DUMPABLE = 4
#: The name of the process in ``ps -o comm`` and ``top``, in bytes, truncated to 15.
NAME = 15
#: Whether orphaned descendants become children of the process.
CHILD_SUBREAPER = 36


def set_attribute(attribute: int, value: int | bytes) -> None:
    """
    Set an attribute of this process; do nothing on systems other than Linux.

    :raise OSError: if the kernel refuses.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None, use_errno=True)
        if library.prctl(attribute, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({attribute})")
