# SPDX-License-Identifier: Apache-2.0
"""
Pack the archive of the old style: ``python examples/old_style/build.py STORE``.

It is made as such archives were: a gzip-compressed tar with the files at its root, by hand, without an archiver.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

MANIFEST = {
    "createdOn": "14/11/2018 10:00:00",
    "runtime": "python3",
    "description": "Counts words",
    "archiverVersion": "0.2.0",
    "model": {"modelName": "old_style", "modelVersion": "1.0", "handler": "service.py:handle"},
}


def build(store: Path) -> Path:
    """Write ``old_style.tar.gz`` into ``store``."""
    path = store / "old_style.tar.gz"
    manifest = json.dumps(MANIFEST).encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("MAR-INF/MANIFEST.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
        for name in ("service.py", "ignored.json"):
            archive.add(HERE / name, name)
    return path


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
