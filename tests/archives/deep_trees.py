# SPDX-License-Identifier: Apache-2.0
"""Directory trees nested more deeply than most tools support."""

from __future__ import annotations

import os
from pathlib import Path


def deepen(directory: Path, depth: int, name: str = "d") -> None:
    """Create nested directories with a total path longer than the maximum path length."""
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
