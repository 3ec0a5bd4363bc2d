# SPDX-License-Identifier: Apache-2.0
"""
Generate model versions and registries.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path

from hypothesis import strategies as st

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.archives.names import name_flaw
from twisted_serve.models.registry import Registry
from twisted_serve.models.version import ModelSettings, ModelVersion


def model_names() -> st.SearchStrategy[str]:
    """Generate valid model names."""
    plain = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_\-.]{0,20}", fullmatch=True)
    any_text = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=20)
    return plain | any_text.filter(lambda text: name_flaw(text) is None)


def model_settings() -> st.SearchStrategy[ModelSettings]:
    """Generate consistent settings."""
    counts = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted)
    return st.builds(
        lambda workers, batch_size, delay: ModelSettings(workers[0], workers[1], batch_size, delay),
        counts,
        st.integers(1, 64),
        st.integers(0, 10_000),
    )


def model_versions(
    names: st.SearchStrategy[str] | None = None, versions: st.SearchStrategy[str] | None = None
) -> st.SearchStrategy[ModelVersion]:
    """Generate model versions with the given names and versions."""
    return st.builds(
        lambda name, version, settings: ModelVersion(
            name,
            version,
            f"{name}.mar",
            Path("/models") / name,
            Manifest(name, version),
            ModelConfig(),
            "h.py",
            settings,
        ),
        model_names() if names is None else names,
        st.sampled_from(["1.0", "1.1", "2.0"]) if versions is None else versions,
        model_settings(),
    )


def registries(max_size: int = 12) -> st.SearchStrategy[Registry]:
    """Generate registries with up to ``max_size`` versions; some models have more than one."""
    few = st.sampled_from(["a", "B", "b.c", "long-name"])
    return st.lists(
        model_versions(names=st.one_of(few, model_names())), max_size=max_size, unique_by=lambda v: (v.name, v.version)
    ).map(lambda versions: reduce(Registry.register, versions, Registry()))
