# SPDX-License-Identifier: Apache-2.0
"""
This module implements how an exception of a handler crosses to the server, as a code and one line of text; and how
all of it comes to the model log.
"""

from __future__ import annotations

import re
import traceback
from contextlib import suppress
from pathlib import Path

#: What `complain` writes to: the descriptor, because a handler may replace, redirect or close ``sys.stderr``.
STDERR = 2

# Enough for any sentence; a message is not a place for a dump.
MAX_TEXT = 2000

# What a client is told of a handler's exception, in characters.
MAX_PUBLIC = 300

# An absolute path, of POSIX or of Windows; its last name is kept.
_PATH = re.compile(r"(?<![\w:/.~-])(?:~|[A-Za-z]:)?(?:[/\\][^/\\\s'\":,;<>|()\[\]]*)*[/\\]([^/\\\s'\":,;<>|()\[\]]*)")


def text_of(error: object) -> str:
    """Get the text of an exception or its message, as UTF-8 can carry it; empty if its own ``__str__`` fails."""
    try:
        return str(error).encode("utf-8", "replace").decode("utf-8")
    except Exception:
        return ""


def complain(text: str, error: BaseException | None = None) -> None:
    """
    Write to the model log what went wrong, with the traceback.

    Not with ``logging``, which is the handler's: one that configures it may silence us, and one that breaks it,
    break us.
    """
    # Whoever has closed our output, or used up all memory, gets the answer all the same.
    with suppress(OSError, MemoryError):
        said = "".join(traceback.format_exception(error)) if error is not None else ""
        with open(STDERR, "wb", closefd=False) as file:
            file.write(f"{text}\n{said}".encode("utf-8", "backslashreplace"))


def out_of_resources(error: BaseException) -> bool:
    """Whether memory was exhausted: the host's, or a CUDA device's."""
    return isinstance(error, MemoryError) or "CUDA" in text_of(error)


def public_reason(error: BaseException, model_dir: str) -> str:
    """
    Return one line on what happened and where, for clients: as `reason`, but short, and of paths the last name only.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if _is_in(each.filename, model_dir)] or frames
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    text = _PATH.sub(r"\1", " ".join(text_of(error)[:MAX_TEXT].split()))
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _one_line(said if len(said) <= MAX_PUBLIC else f"{said[: MAX_PUBLIC - 1]}…", place)


def reason(error: BaseException, model_dir: str) -> str:
    """
    Say in one line what happened and where: ``ZeroDivisionError: division by zero (handler.py, line 3)``.

    The place is the innermost one in the model's own files, if any is; paths outside of the archive are
    shortened to the file's name, because clients read this line.
    """
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{_short(error.filename, model_dir)}, line {error.lineno}"
        return _one_line(f"{type(error).__name__}: {error.msg}", place)
    text = text_of(error)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return _one_line(said, "")
    frame = ([each for each in frames if _is_in(each.filename, model_dir)] or frames)[-1]
    return _one_line(said, f"{_short(frame.filename, model_dir)}, line {frame.lineno}")


def _one_line(said: str, place: str) -> str:
    line = " ".join(said.split())[:MAX_TEXT]
    return f"{line} ({place})" if place else line


def _is_in(filename: str, model_dir: str) -> bool:
    return Path(filename).is_relative_to(model_dir)


def _short(filename: str, model_dir: str) -> str:
    path = Path(filename)
    return str(path.relative_to(model_dir)) if path.is_relative_to(model_dir) else path.name
