# SPDX-License-Identifier: Apache-2.0
"""
Import a handler by name and return its entry point.

The rules are in ``docs/torchserve/archives_workers_handlers.md`` §7.2, with two differences:
an error inside the user's module is reported unchanged, and a module may define several
classes if exactly one of them is the handler.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from twisted_serve.backend.ts.names import BUILT_IN_HANDLERS
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.model_files import list_classes_from_module

#: ``entry(data, context)``
EntryPoint: TypeAlias = Callable[[Any, Context], Any]


def load_entry_point(handler: str, context: Context) -> EntryPoint:
    """
    Import the handler, initialize it, and return its entry point.

    :param handler: ``file.py``, ``module:function``, ``module:Class`` or a built-in handler's name.
    :raise ModuleNotFoundError: if the module does not exist.
    :raise ValueError: if the name is empty, or the module has no entry point.
    :raise Exception: any exception of the handler's code.
    """
    place, _, function = handler.partition(":")
    if not place:
        raise ValueError(f"handler is {handler!r}, which names no module")
    module = _import(place, context.system_properties["model_dir"])
    found = getattr(module, function or "handle", None)
    if callable(found) and not isinstance(found, type):
        if not inspect.iscoroutinefunction(found):
            found(None, context)
        return _as_entry_point(found)
    service_class = found if isinstance(found, type) else _handler_class(module)
    for method in ("handle", "initialize"):
        if not callable(getattr(service_class, method, None)):
            raise ValueError(f"Expect {method} method in class {service_class.__name__}")
    service = service_class()
    service.initialize(context)
    return _as_entry_point(service.handle)


def _as_entry_point(found: Any) -> EntryPoint:
    entry: EntryPoint = found
    return entry


def _import(place: str, model_dir: str) -> ModuleType:
    path = Path(model_dir, place)
    name = path.stem if path.suffix == ".py" else path.name
    if path.parent != Path(model_dir) and str(path.parent) not in sys.path:
        sys.path.insert(1, str(path.parent))
    importlib.invalidate_caches()
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        if name not in BUILT_IN_HANDLERS:
            raise ModuleNotFoundError(f"the archive has no module {name}, nor is it a built-in handler", name=name)
        return importlib.import_module(BUILT_IN_HANDLERS[name])
    module = importlib.import_module(name)
    own = path.parent / f"{name}.py"
    if own.is_file() and not _is_file_of(module, own):
        raise ImportError(f"{own.name} has the name of a module that is in use already; rename it", name=name)
    return module


def _is_file_of(module: ModuleType, path: Path) -> bool:
    # Modules built into the interpreter have no file.
    file = getattr(module, "__file__", None)
    return file is not None and path.samefile(file)


def _handler_class(module: ModuleType) -> type:
    """Return the handler class: the only class, or the only one with ``handle`` that has no subclass with it."""
    classes = list_classes_from_module(module)
    if len(classes) == 1:
        return classes[0]
    able = [each for each in classes if callable(getattr(each, "handle", None))]
    leaves = [each for each in able if not any(other is not each and issubclass(other, each) for other in able)]
    if len(leaves) != 1:
        names = [each.__name__ for each in leaves or classes]
        raise ValueError(f"Expected only one class in custom service code or a function entry point {names}")
    return leaves[0]
