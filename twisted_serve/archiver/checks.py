# SPDX-License-Identifier: Apache-2.0
"""
This module implements the archiver's checks: what would fail when the archive is served is told when it is made.

Nothing is imported and nothing is run: packing a model needs none of what it needs.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from twisted_serve.archiver.config import ArchiverError, ModelArchiverConfig
from twisted_serve.archiver.handlers import HandlerName
from twisted_serve.archives.model_config import load_model_config
from twisted_serve.errors import InvalidModel


def check(config: ModelArchiverConfig, handler: HandlerName, warn: Callable[[str], object]) -> None:
    """
    Look into the files of a model; that they are there is known already.

    :param warn: Gets what is doubtful.
    :raise ArchiverError: for what is wrong.
    """
    if config.runtime == "LSP":
        warn("The runtime LSP is for C++ workers, which twisted_serve does not have.")
    elif handler.path is not None:
        check_functions(handler.path, () if handler.function is None else (handler.function,))
    if config.model_file is not None and config.runtime != "LSP":
        _parsed(Path(config.model_file), "model file")
    if config.requirements_file is not None:
        _text(Path(config.requirements_file), "requirements file")
    if config.config_file is not None:
        try:
            _config, doubts = load_model_config(Path(config.config_file), config.config_file)
        except InvalidModel as e:
            raise ArchiverError(e.message) from e
        for doubt in doubts:
            warn(doubt)


def check_functions(path: Path, functions: Iterable[str]) -> None:
    """
    See that a handler is Python, and that in it there is something that could be each of some functions.

    :raise ArchiverError: if not.
    """
    names = set(_bound(_parsed(path, "handler")))
    for function in functions:
        if function not in names and "*" not in names:
            raise ArchiverError(f"The handler {path} has no {function!r:.200}.")


def _parsed(path: Path, what: str) -> ast.Module:
    try:
        # An invalid escape is a warning about somebody else's code, and not what was asked.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes(), str(path))
    except SyntaxError as e:
        raise ArchiverError(f"The {what} {path} is not valid Python: {e.msg} (line {e.lineno}).") from e
    # NUL bytes in older versions; an unknown encoding; a nesting that nobody has written by hand.
    except (ValueError, RecursionError, MemoryError) as e:
        raise ArchiverError(f"The {what} {path} is not valid Python: {e}.") from e


def _text(path: Path, what: str) -> None:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as e:
        raise ArchiverError(f"The {what} {path} is not UTF-8 at byte {e.start}.") from e


def _bound(module: ast.Module) -> Iterator[str]:
    """List the names that a module may define, wherever in it; ``*`` if it takes somebody else's."""
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
