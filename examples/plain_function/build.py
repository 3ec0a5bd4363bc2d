# SPDX-License-Identifier: Apache-2.0
"""
Pack the archive of the plain function: ``python examples/plain_function/build.py STORE``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.archiver.packing import pack

HERE = Path(__file__).resolve().parent


def build(store: Path) -> Path:
    """Make the directory ``plain_function`` in ``store``: a model need not be packed."""
    with TemporaryDirectory() as place:
        # Of a directory the archiver takes the content; so this one is put into another.
        copytree(HERE / "data", Path(place) / "extra" / "data")
        return pack(
            ModelArchiverConfig(
                model_name="plain_function",
                version="1.0",
                handler=HERE / "handler.py",
                extra_files=[HERE / "conversion.py", Path(place) / "extra"],
                archive_format="no-archive",
                export_path=store,
                force=True,
            )
        )


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
