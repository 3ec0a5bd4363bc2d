# SPDX-License-Identifier: Apache-2.0
"""Directories in each other, deeper than tools expect."""

from __future__ import annotations

import os
from pathlib import Path


def deepen(directory: Path, depth: int, name: str = "d") -> None:
    """Make directories in each other, deeper than a path can be long."""
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
