# SPDX-License-Identifier: Apache-2.0
"""
Pack an archive that brings its requirements: ``python examples/own_requirements/build.py STORE``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.archiver.packing import pack

HERE = Path(__file__).resolve().parent


def build(store: Path) -> Path:
    """Build the package's wheel and write ``own_requirements.mar``, which brings it along, into ``store``."""
    with TemporaryDirectory() as place:
        source = copytree(HERE / "package", Path(place) / "package")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        wheel = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", place, str(source)]
        subprocess.run([*pip, *wheel], check=True)
        return pack(
            ModelArchiverConfig(
                model_name="own_requirements",
                version="1.0",
                handler=HERE / "handler.py",
                requirements_file=HERE / "requirements.txt",
                extra_files=[f"{place}/*.whl"],
                export_path=store,
                force=True,
            )
        )


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
