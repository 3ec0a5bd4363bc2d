# SPDX-License-Identifier: Apache-2.0
"""
Check the files of a model for mistakes that would otherwise fail when the archive is served.

Nothing is imported or run: packing a model requires none of its dependencies.
"""

from __future__ import annotations

import ast
import io
import os
import sys
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from twisted_serve.archiver.config import ArchiverError, ModelArchiverConfig
from twisted_serve.archiver.handlers import HandlerName
from twisted_serve.archiver.imports import missing_modules
from twisted_serve.archives.model_config import load_model_config
from twisted_serve.errors import InvalidModel

# Maximum nesting of brackets; CPython's own limit is 200.
_MAX_NESTING = 200


def check(config: ModelArchiverConfig, handler: HandlerName, warn: Callable[[str], object]) -> None:
    """
    Check the contents of a model's files, which exist.

    :param warn: Called with each doubtful finding.
    :raise ArchiverError: for an error.
    """
    if config.runtime == "LSP":
        warn("The runtime LSP is for C++ workers, which twisted_serve does not have.")
    elif handler.path is not None:
        check_functions(handler.path, () if handler.function is None else (handler.function,), warn)
    if config.model_file is not None and config.model_file.endswith(".py") and config.runtime != "LSP":
        _parse(Path(config.model_file), "model file", warn)
    if config.requirements_file is not None:
        _text(Path(config.requirements_file), "requirements file")
    if config.config_file is not None:
        try:
            _config, config_warnings = load_model_config(Path(config.config_file), config.config_file)
        except InvalidModel as e:
            raise ArchiverError(e.message) from e
        for warning in config_warnings:
            warn(warning)


def warn_of_missing(files: Mapping[str, Path], warn: Callable[[str], object]) -> None:
    """Warn of local modules that are imported but not packed."""
    for missing in missing_modules(files, Path.cwd()):
        warn(
            f"{missing.importer} imports {missing.module}, which is a local module ({_short_path(missing.path)}) "
            "and not in the archive; --extra-files packs it."
        )


def check_functions(path: Path, functions: Iterable[str], warn: Callable[[str], object]) -> None:
    """
    Check that a handler is valid Python and may define the given functions.

    :param warn: Called with each doubtful finding.
    :raise ArchiverError: if not.
    """
    module = _parse(path, "handler", warn)
    if module is None:
        return
    names = set(_defined_names(module))
    for function in functions:
        if function not in names and "*" not in names:
            near = get_close_matches(function, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ArchiverError(f"The handler {path} has no {function!r:.200}{hint}")


def check_entry_point(path: Path, warn: Callable[[str], object]) -> None:
    """
    Check that a handler has what its requests are given to if no function is named: ``handle``, or a class.

    :param warn: Called with each doubtful finding.
    :raise ArchiverError: if not, with the function that may be meant.
    """
    module = _parse(path, "handler", warn)
    if module is None:
        return
    names = set(_defined_names(module))
    if names & {"handle", "*"} or any(isinstance(node, ast.ClassDef) for node in ast.walk(module)):
        return
    functions = [each.name for each in module.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
    meant = functions if len(functions) == 1 else get_close_matches("handle", functions, n=1)
    hint = f"; did you mean {path}:{meant[0]}?" if meant else "."
    raise ArchiverError(f"The handler {path} has no function handle(data, context) and no class{hint}")


def _parse(path: Path, what: str, warn: Callable[[str], object]) -> ast.Module | None:
    """Return a file's syntax tree; None, with a warning, if only another version of Python may be able to parse it."""
    try:
        # Warnings, e.g. of an invalid escape, concern the model's code and not its packing.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes(), str(path))
    except SyntaxError as e:
        text = f"The {what} {path} is not valid Python"
        if not _is_well_formed(path):
            raise ArchiverError(f"{text}: {e.msg} (line {e.lineno}).") from e
        version = ".".join(map(str, sys.version_info[:2]))
        warn(f"{text} {version}: {e.msg} (line {e.lineno}). Another version may read it.")
        return None
    # NUL bytes in older versions of Python, an unknown encoding, or extreme nesting.
    except (ValueError, RecursionError, MemoryError) as e:
        raise ArchiverError(f"The {what} {path} is not valid Python: {e}.") from e


def _is_well_formed(path: Path) -> bool:
    """
    Return whether a file's brackets, strings and indentation are well-formed, as every version of Python requires.
    """
    depth = 0
    try:
        content = path.read_bytes()
        if b"\0" not in content:
            for token in tokenize.tokenize(io.BytesIO(content).readline):
                if token.type == tokenize.OP:
                    depth += (token.string in "([{") - (token.string in ")]}")
                    if not 0 <= depth <= _MAX_NESTING:
                        return False
    except (tokenize.TokenError, SyntaxError, ValueError):
        return False
    return depth == 0 and b"\0" not in content


def _short_path(path: Path) -> str:
    """Return the shortest form of a path."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _text(path: Path, what: str) -> None:
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as e:
        raise ArchiverError(f"The {what} {path} is not UTF-8 at byte {e.start}.") from e


def _defined_names(module: ast.Module) -> Iterator[str]:
    """Yield the names that a module may define at any level; ``*`` for a star import."""
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
