# SPDX-License-Identifier: Apache-2.0
"""
Write ``torchserve``, ``torch-model-archiver`` and ``torch-workflow-archiver`` as commands of this installation.

Each is a shell script that runs this interpreter with its arguments, in any working directory.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# The line that identifies our files.
_MARK = "# Written by twisted-serve shims; it may be overwritten."

#: The module and the function that each command runs.
COMMANDS = {
    "torchserve": ("twisted_serve.cli", "main_as_torchserve"),
    "torch-model-archiver": ("twisted_serve.archiver.command", "main"),
    "torch-workflow-archiver": ("twisted_serve.archiver.workflow_command", "main"),
}

# Files above this size in bytes are not searched for the mark.
_MAX_BYTES = 65536


class ShimError(Exception):
    """A command cannot be written; the message is for the user."""


def parser() -> argparse.ArgumentParser:
    """Create the parser of ``twisted-serve shims``."""
    made = argparse.ArgumentParser(
        prog="twisted-serve shims",
        description="Write torchserve, torch-model-archiver and torch-workflow-archiver, which run this installation.",
    )
    made.add_argument("directory", type=Path, metavar="DIR", help="where to; it is made if it is not there")
    made.add_argument("--force", action="store_true", help="replace other files of these names, TorchServe's included")
    return made


def shims(arguments: Sequence[str]) -> int:
    """
    Run ``twisted-serve shims``.

    :return: The exit status: 1 when a command could not be written, with the reason on stderr.
    :raise SystemExit: for an invalid command line, and for ``--help``.
    """
    asked = parser().parse_args(arguments)
    directory = Path(os.path.abspath(asked.directory))
    try:
        for name, news in write_shims(directory, Path(sys.executable), force=asked.force):
            sys.stdout.write(f"{directory / name}: {news}\n")
    except (OSError, ShimError) as e:
        sys.stderr.write(f"{e}\n")
        return 1
    found = shutil.which("torchserve")
    if found is None or Path(found).parent.absolute() != directory:
        first = f"finds {found} first" if found is not None else "does not have it"
        sys.stdout.write(f"PATH {first}: put {directory} at its beginning.\n")
    return 0


def write_shims(directory: Path, interpreter: Path, *, force: bool = False) -> list[tuple[str, str]]:
    """
    Write all commands, or none if a file that is not ours is in the way.

    :param interpreter: The absolute path of the Python interpreter that the commands run.
    :param force: Whether files that are not ours are replaced.
    :return: For each command, its name and the outcome.
    :raise ShimError: when a file that is not ours is in the way.
    :raise OSError: when a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    texts = {name: _shim(interpreter, module, function) for name, (module, function) in COMMANDS.items()}
    for name in texts:
        path = directory / name
        if os.path.lexists(path) and not _is_ours(path) and (not force or (path.is_dir() and not path.is_symlink())):
            hint = "" if force else "; --force replaces it"
            raise ShimError(f"{path} is there already and was not written by twisted-serve shims{hint}")
    return [(name, _write(directory / name, text, interpreter)) for name, text in texts.items()]


def _shim(interpreter: Path, module: str, function: str) -> str:
    # -c instead of -m, so that no module is imported from the working directory.
    code = f"import sys; sys.path[:] = filter(None, sys.path); from {module} import {function}; sys.exit({function}())"
    return f'#!/bin/sh\n{_MARK}\nexec {shlex.quote(str(interpreter))} -c {shlex.quote(code)} "$@"\n'


def _is_ours(path: Path) -> bool:
    """Return whether this module has written a file; a symbolic link is never ours, whatever its target."""
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
            return _MARK.encode() in path.read_bytes().splitlines()
    return False


def _write(path: Path, text: str, interpreter: Path) -> str:
    """Write a command atomically, replacing an existing file; return the outcome."""
    new = not os.path.lexists(path)
    if not new and _is_ours(path) and path.read_text() == text and os.access(path, os.X_OK):
        return f"unchanged, runs {interpreter}"
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(descriptor, 0o755)
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return f"{'written' if new else 'replaced'}, runs {interpreter}"
