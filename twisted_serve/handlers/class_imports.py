# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``import_class``, by which handlers take a class from their settings.
"""

from __future__ import annotations

import importlib

__all__ = ["import_class"]


def import_class(class_name: str, module_prefix: str | None = None) -> type:
    """
    Import a class.

    :param class_name: ``package.module.Class``.
    :param module_prefix: What to put in front of it.
    :raise ImportError: if there is no such module, or no such class in it.
    """
    full_name = class_name if module_prefix is None else f"{module_prefix}.{class_name}"
    module_name, _, name = full_name.rpartition(".")
    if not module_name:
        raise ImportError(f"{full_name!r} names no module; it must be package.module.Class")
    found = getattr(importlib.import_module(module_name), name, None)
    if not isinstance(found, type):
        raise ImportError(f"{module_name} has no class {name}", name=module_name)
    return found
