# SPDX-License-Identifier: Apache-2.0
"""
Check that untrusted paths stay inside their directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from twisted_serve.errors import InvalidModel

# All characters that can delimit a path component, in a path or anywhere in a URL.
_SEPARATORS = re.compile(r"[/\\?#&=;]")

_IMPOSSIBLE = re.compile("[\0\ud800-\udfff]")

# Maximum number of percent-decoding rounds; a name that needs more is considered an attack.
_MAX_DECODINGS = 4


def is_possible_name(text: str) -> bool:
    """Return whether ``text`` is possible as a file name: no NUL, and no lone surrogate, which JSON allows."""
    return _IMPOSSIBLE.search(text) is None


def has_parent_component(text: str) -> bool:
    """
    Return whether a path or URL has a ``..`` component in any spelling.

    Backslashes count as separators, and percent escapes are decoded repeatedly, because code that reads the text later
    may be more lenient.  ``a..b.mar`` has no such component.
    """
    for _ in range(_MAX_DECODINGS):
        if ".." in _SEPARATORS.split(text):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def inside(root: Path, path: Path) -> bool:
    """Return whether ``path`` is strictly below ``root`` after following all links."""
    real_root, real = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    return real != real_root and real.is_relative_to(real_root)


def _is_lexically_inside(root: Path, path: Path) -> bool:
    """Return whether ``path`` is strictly below ``root`` without following links."""
    return path != root and path.is_relative_to(root)


def confined(model_dir: Path, entry: str, value: str, links: bool = False, source: str = "Manifest entry") -> Path:
    """
    Return the path of a file in the model directory that the manifest names.

    :param entry: The manifest's key, for the error message.
    :param links: Whether a symbolic link may lead out of the directory: only the operator creates these.
    :param source: The source of the key in the error message, if not the manifest.
    :raise InvalidModel: if the file would be outside the directory, or the operating system cannot look it up: a name
        that is too long, a loop of links, or an unreadable directory.
    """
    path = model_dir / value
    if (
        not is_possible_name(value)
        or has_parent_component(value)
        or not (_is_lexically_inside if links else inside)(model_dir, path)
    ):
        raise InvalidModel(f"{source} {entry} is {value!r:.200}, which is not inside the model directory.")
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        # The caller decides whether the file must exist.
        pass
    except OSError as e:
        raise InvalidModel(
            f"{source} {entry} is {value!r:.200}, which cannot be the name of a file: {e.strerror}."
        ) from e
    return path


def confined_handler(model_dir: Path, handler: str, links: bool = False, source: str = "Manifest entry") -> None:
    """
    Check that a handler's file is inside the model directory; the name of a built-in handler passes.

    :param handler: ``file.py`` or ``file``, with or without ``:function``.
    :param links: As in `confined`, like ``source``.
    :raise InvalidModel: as `confined`.
    """
    place = handler.partition(":")[0]
    confined(model_dir, "handler", place, links, source)
    if place and not place.endswith(".py"):
        confined(model_dir, "handler", f"{place}.py", links, source)
