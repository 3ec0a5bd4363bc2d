# SPDX-License-Identifier: Apache-2.0
"""
This module implements the archive of the voice activity example: ``python examples/voice_activity/build.py STORE``.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.archive import manifest_of, write_archive  # noqa: E402

CONFIG = b"""\
minWorkers: 1
maxWorkers: 1
"""


def model_file() -> Path:
    """
    Find the TorchScript file in the installed package ``silero-vad``, without importing it.

    :raise RuntimeError: if it is not installed.
    """
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package silero-vad is not installed; it comes with twisted-serve[demo]")
    return Path(spec.origin).parent / "data" / "silero_vad.jit"


def build(store: Path) -> Path:
    """Write ``voice_activity.mar`` into ``store``."""
    files = {
        "handler.py": HERE / "handler.py",
        "segments.py": HERE / "segments.py",
        "wave_audio.py": HERE / "wave_audio.py",
        "model-config.yaml": CONFIG,
        "silero_vad.pt": model_file(),
    }
    manifest = manifest_of(
        "voice_activity", "handler.py", serializedFile="silero_vad.pt", configFile="model-config.yaml"
    )
    return write_archive(Path(store) / "voice_activity.mar", files, manifest)


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
