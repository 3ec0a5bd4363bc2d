# SPDX-License-Identifier: Apache-2.0
"""
Pack the archive of the voice activity example: ``python examples/voice_activity/build.py STORE``.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.archiver.packing import pack

HERE = Path(__file__).resolve().parent


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
    return pack(
        ModelArchiverConfig(
            model_name="voice_activity",
            version="1.0",
            handler=HERE / "handler.py",
            serialized_file=model_file(),
            extra_files=[HERE / "segments.py", HERE / "wave_audio.py"],
            config_file=HERE / "model-config.yaml",
            export_path=store,
            force=True,
        )
    )


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
