# SPDX-License-Identifier: Apache-2.0
"""
This module implements confinement: which file a name that came from outside may mean.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from twisted_serve.errors import InvalidModel

# Everything that may stand beside a path component, in a path or anywhere in a URL.
_SEPARATORS = re.compile(r"[/\\?#&=;]")

_UNNAMEABLE = re.compile("[\0\ud800-\udfff]")

# A name that is still not plain after so many rounds of percent decoding was made to deceive.
_MOST_DECODINGS = 4


def nameable(text: str) -> bool:
    """Say whether a file can have this name at all: no NUL, and no half of a surrogate pair, which JSON can bring."""
    return _UNNAMEABLE.search(text) is None


def climbs(text: str) -> bool:
    """
    Say whether a path or URL has a ``..`` component, however it is spelled.

    Backslashes separate, and percent escapes count in every depth: what reads the
    text after us may be less careful.  ``a..b.mar`` does not climb.
    """
    for _ in range(_MOST_DECODINGS):
        if ".." in _SEPARATORS.split(text):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def inside(root: Path, path: Path) -> bool:
    """Say whether ``path``, all links followed, is below ``root`` (and is not ``root``)."""
    real_root, real = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    return real != real_root and real.is_relative_to(real_root)


def _named_inside(root: Path, path: Path) -> bool:
    """Return whether ``path``, no link followed, is below ``root``."""
    return path != root and path.is_relative_to(root)


def confined(model_dir: Path, entry: str, value: str, links: bool = False, source: str = "Manifest entry") -> Path:
    """
    Find the file of a model directory which its manifest names.

    :param entry: The manifest's word for it, for the error's text.
    :param links: Whether a symbolic link may lead out of the directory: the operator has put it there.
    :param source: What has that word, if it is not the manifest.
    :raise InvalidModel: when the file would be outside of the directory, or the operating system cannot look for it:
        a name that is too long, a loop of links, a directory that may not be read.
    """
    path = model_dir / value
    if not nameable(value) or climbs(value) or not (_named_inside if links else inside)(model_dir, path):
        raise InvalidModel(f"{source} {entry} is {value!r:.200}, which is not inside the model directory.")
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        # Whether the file has to be there is for the caller to know.
        pass
    except OSError as e:
        raise InvalidModel(
            f"{source} {entry} is {value!r:.200}, which cannot be the name of a file: {e.strerror}."
        ) from e
    return path


def confined_handler(model_dir: Path, handler: str, links: bool = False, source: str = "Manifest entry") -> None:
    """
    Check that the file of a handler can be in the model directory; a built-in handler's name can.

    :param handler: ``file.py`` or ``file``, with or without ``:function``.
    :param links: As `confined`, like ``source``.
    :raise InvalidModel: as `confined`.
    """
    place = handler.partition(":")[0]
    confined(model_dir, "handler", place, links, source)
    if place and not place.endswith(".py"):
        confined(model_dir, "handler", f"{place}.py", links, source)
