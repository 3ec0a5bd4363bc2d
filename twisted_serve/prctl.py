# SPDX-License-Identifier: Apache-2.0
"""
Set attributes of this process that only Linux has (``prctl(2)``).
"""

from __future__ import annotations

import ctypes
import sys

#: The signal that the process gets when its parent dies.
PARENT_DEATH_SIGNAL = 1
#: Whether it can be traced by its own user, and leaves a core dump; 0 for neither.
DUMPABLE = 4
#: Its name in ``ps -o comm`` and ``top``: bytes, of which 15 count.
NAME = 15
#: Whether descendants whose parent has died become its children.
CHILD_SUBREAPER = 36


def set_attribute(attribute: int, value: int | bytes) -> None:
    """
    Set an attribute of this process; do nothing where the system is not Linux.

    :raise OSError: if the kernel refuses.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None, use_errno=True)
        if library.prctl(attribute, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({attribute})")
