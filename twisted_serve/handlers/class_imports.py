# SPDX-License-Identifier: Apache-2.0
"""
Import a class by its dotted name, as handlers do for classes named in their settings.
"""

from __future__ import annotations

import importlib

__all__ = ["import_class"]


def import_class(class_name: str, module_prefix: str | None = None) -> type:
    """
    Import a class.

    :param class_name: ``package.module.Class``.
    :param module_prefix: A package name to prepend, without the dot.
    :raise ImportError: if the module does not exist, or has no class of that name.
    """
    full_name = class_name if module_prefix is None else f"{module_prefix}.{class_name}"
    module_name, _, name = full_name.rpartition(".")
    if not module_name:
        raise ImportError(f"{full_name!r} names no module; it must be package.module.Class")
    found = getattr(importlib.import_module(module_name), name, None)
    if not isinstance(found, type):
        raise ImportError(f"{module_name} has no class {name}", name=module_name)
    return found
