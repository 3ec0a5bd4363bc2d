# SPDX-License-Identifier: Apache-2.0
"""
Convert an exception of a handler to a status code and one line of text, and write its traceback to the model log.
"""

from __future__ import annotations

import re
import traceback
from contextlib import suppress
from pathlib import Path

#: The descriptor `complain` writes to; a handler may replace, redirect or close ``sys.stderr``.
STDERR = 2

# Characters of an exception's text in a message: enough for any sentence, too few for a dump.
MAX_TEXT = 2000

# Characters of an exception's type and text that a client gets.
MAX_PUBLIC = 300

# An absolute path of POSIX or Windows; the group is its last component.
_PATH = re.compile(r"(?<![\w:/.~-])(?:~|[A-Za-z]:)?(?:[/\\][^/\\\s'\":,;<>|()\[\]]*)*[/\\]([^/\\\s'\":,;<>|()\[\]]*)")


def text_of(error: object) -> str:
    """Return the text of an exception or its message, encodable as UTF-8; empty if its ``__str__`` fails."""
    try:
        return str(error).encode("utf-8", "replace").decode("utf-8")
    except Exception:
        return ""


def complain(text: str, error: BaseException | None = None) -> None:
    """
    Write an error to the model log, with the traceback.

    This does not use ``logging``, which belongs to the handler: its configuration could silence the message, or raise.
    """
    # A handler that has closed stderr, or exhausted memory, still gets its response sent.
    with suppress(OSError, MemoryError):
        said = "".join(traceback.format_exception(error)) if error is not None else ""
        with open(STDERR, "wb", closefd=False) as file:
            file.write(f"{text}\n{said}".encode("utf-8", "backslashreplace"))


def out_of_resources(error: BaseException) -> bool:
    """Return whether memory was exhausted: of the host, or (by the text of the error) of a CUDA device."""
    return isinstance(error, MemoryError) or "CUDA" in text_of(error)


def public_reason(error: BaseException, model_dir: str) -> str:
    """
    Return a short line for clients with the error and its place: as `reason`, but with only the last name of paths.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if _is_in(each.filename, model_dir)] or frames
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    text = _PATH.sub(r"\1", " ".join(text_of(error)[:MAX_TEXT].split()))
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _one_line(said if len(said) <= MAX_PUBLIC else f"{said[: MAX_PUBLIC - 1]}…", place)


def reason(error: BaseException, model_dir: str) -> str:
    """
    Return a line with the error and its place: ``ZeroDivisionError: division by zero (handler.py, line 3)``.

    The place is the innermost frame in the model's files, if there is one; paths outside of the archive are
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
