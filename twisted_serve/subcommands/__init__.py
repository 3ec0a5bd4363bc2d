# SPDX-License-Identifier: Apache-2.0
"""
Operate servers from a terminal: the sub-commands of ``twisted-serve``.

``group``  the group of the sub-commands, each imported when it runs
``dev``    serve a handler's file while its author works on it

The server's process imports nothing of this package but this list.
"""

from collections.abc import Mapping
from types import MappingProxyType

#: The sub-commands: the module of this package and the name of the click command in it.
NAMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "dev": ("dev.command", "dev"),
    }
)
