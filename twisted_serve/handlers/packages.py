# SPDX-License-Identifier: Apache-2.0
"""
The packages that built-in handlers need and the server does not: looked for when a model is loaded.

A handler that finds out at its first request that a package is missing is a server that says it is ready and is not.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["needed"]

# By the name of their first module: what the package is called, and what brings it.
_PACKAGES = {
    "PIL": ("Pillow", "twisted-serve[vision]"),
    "numpy": ("numpy", "twisted-serve[torch]"),
    "torch": ("torch", "twisted-serve[torch]"),
}


def needed(module: str, by: str) -> Any:
    """
    Import a module of a package.

    :param by: What needs it, for the message.
    :raise ImportError: if the package is not installed, naming it and what installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        first = module.partition(".")[0]
        # Of a package that is there, and broken, the error itself says more.
        if e.name is None or e.name.partition(".")[0] != first:
            raise
        package, source = _PACKAGES.get(first, (first, first))
        raise ImportError(
            f"{by} needs the package {package}, which is not installed: pip install '{source}'", name=first
        ) from e
