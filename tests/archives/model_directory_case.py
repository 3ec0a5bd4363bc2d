# SPDX-License-Identifier: Apache-2.0
"""Base class of the tests for manifests and configurations: a model's directory."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.manifest import MANIFEST_PATH, Manifest, read_manifest
from twisted_serve.archives.model_config import ModelConfig, read_model_config


class ModelDirectoryTestCase(SynchronousTestCase):
    """A test with a model directory."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.model = self.root / "model"
        (self.model / "MAR-INF").mkdir(parents=True)

    def write(self, text: str) -> None:
        (self.model / MANIFEST_PATH).write_text(text)

    def manifest(self, **model: Any) -> Manifest:
        self.write(json.dumps({"model": model}))
        return read_manifest(self.model)

    def config(self, text: str) -> tuple[ModelConfig, tuple[str, ...]]:
        (self.model / "c.yaml").write_text(text)
        return read_model_config(self.model, Manifest(config_file="c.yaml"))
