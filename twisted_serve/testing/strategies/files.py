# SPDX-License-Identifier: Apache-2.0
"""
Generate damage to a file: what a crash, an editor or another user may have left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from attrs import field, frozen
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["DAMAGES", "Damage", "damages"]


@frozen(repr=False)
class Damage:
    """
    A way in which a file may be damaged.

    :ivar words: The state of the file in words, its representation.
    :ivar do: Damage the file at a path.
    """

    words: str
    do: Callable[[Path], object] = field(eq=False)

    def __repr__(self) -> str:
        """Return the state in words."""
        return f"<{self.words}>"


def _keep(part: float) -> Callable[[Path], object]:
    """Return a function that cuts off the end of a file."""
    return lambda path: os.truncate(path, int(part * path.stat().st_size))


def _append(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes() + data)


def _link(path: Path) -> None:
    """Put a link in place of a file, which goes on under another name."""
    elsewhere = path.with_name(f"elsewhere-{path.name}")
    path.replace(elsewhere)
    path.symlink_to(elsewhere)


#: All damages: none of these files may be believed.
DAMAGES = (
    Damage("lacks its last byte", lambda path: os.truncate(path, path.stat().st_size - 1)),
    Damage("is cut in half", _keep(0.5)),
    Damage("is empty", _keep(0)),
    Damage("is written twice", lambda path: path.write_bytes(2 * path.read_bytes())),
    Damage("ends with zeros", _append(bytes(64))),
    Damage("can be read by others", lambda path: path.chmod(0o644)),
    Damage("is a link", _link),
)


def damages() -> SearchStrategy[Damage]:
    """Generate damages."""
    return st.sampled_from(DAMAGES)
