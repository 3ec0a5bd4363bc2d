# SPDX-License-Identifier: Apache-2.0
"""
Import the packages that built-in handlers need and the server does not, when a model is loaded.

If a handler found out only at its first request that a package is missing, the server would report a model as ready
that is not.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["needed"]

# Top-level module to the package's name and the requirement that installs it.
_PACKAGES = {
    "PIL": ("Pillow", "twisted-serve[vision]"),
    "numpy": ("numpy", "twisted-serve[torch]"),
    "torch": ("torch", "twisted-serve[torch]"),
}


def needed(module: str, by: str) -> Any:
    """
    Import and return a module of an optional package.

    :param by: The name of the handler or file that needs the module, for the message.
    :raise ImportError: if the package is not installed; the message names it and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        first = module.partition(".")[0]
        # The package is installed but broken: the original error is more useful.
        if e.name is None or e.name.partition(".")[0] != first:
            raise
        package, source = _PACKAGES.get(first, (first, first))
        raise ImportError(
            f"{by} needs the package {package}, which is not installed: pip install '{source}'", name=first
        ) from e
