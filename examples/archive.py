# SPDX-License-Identifier: Apache-2.0
"""
This module implements the writing of a model archive: a zip with its manifest.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Everything else is decided by the files: the same files make the same bytes.
_STAMP = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, files: Mapping[str, bytes | Path], manifest: Mapping[str, Any]) -> Path:
    """
    Write a ``.mar``; nobody sees half of it.

    :param files: The name in the archive to the content, or to the file that has it.
    :param manifest: What ``MAR-INF/MANIFEST.json`` shall say.
    :return: ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, bytes | Path] = {"MAR-INF/MANIFEST.json": json.dumps(manifest, indent=2).encode(), **files}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, source in content.items():
                data = source.read_bytes() if isinstance(source, Path) else source
                archive.writestr(zipfile.ZipInfo(name, _STAMP), data, zipfile.ZIP_DEFLATED)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def manifest_of(name: str, handler: str, **files: str) -> dict[str, Any]:
    """
    Make a manifest for version 1.0 of a model.

    :param files: Further members of ``model``: ``serializedFile``, ``modelFile``, ``configFile``.
    """
    return {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {"modelName": name, "modelVersion": "1.0", "handler": handler, **files},
        "archiverVersion": "0.12.0",
    }
