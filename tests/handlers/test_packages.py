# SPDX-License-Identifier: Apache-2.0
"""Tests for what handlers and envelopes say of packages that are not installed, and when: before they are ready."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.modules import replace_modules
from twisted_serve.handlers.packages import needed
from twisted_serve.testing.local_worker import local_worker

MODEL = "class Net:\n    def to(self, device): pass\n    def eval(self): pass\n    load_state_dict = to\n"


class MissingPackageTests(SynchronousTestCase):
    """A model whose handler lacks something is not loaded."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "model.py").write_text(MODEL)

    def refused(self, without: str, handler: str, manifest: dict[str, str] | None = None, **settings: Any) -> str:
        """Load a model without a package; give the reason for which that fails."""
        hidden = {name: None for name in sys.modules if name.partition(".")[0] == without}
        replace_modules(self, {**hidden, without: None})
        named = {"modelFile": "model.py"} if manifest is None else manifest
        with (
            self.assertRaises(ImportError) as raised,
            local_worker(self.dir, handler, manifest={"model": named}, **settings),
        ):
            pass
        return str(raised.exception)

    def test_images(self) -> None:
        """Handlers of images need Pillow and numpy, and say which extra has them."""
        for handler, name in (
            ("image_classifier", "ImageClassifier"),
            ("image_segmenter", "ImageSegmenter"),
            ("object_detector", "ObjectDetector"),
        ):
            words = self.refused("PIL", handler)
            self.assertEqual(
                f"{name} needs the package Pillow, which is not installed: pip install 'twisted-serve[vision]'", words
            )

    def test_numpy(self) -> None:
        """So they do numpy."""
        self.assertIn("the package numpy, which is not installed: pip ins", self.refused("numpy", "image_classifier"))

    def test_torch(self) -> None:
        """All built-in handlers need torch."""
        for handler in ("base_handler", "text_classifier", "image_classifier"):
            self.assertIn("pip install 'twisted-serve[torch]'", self.refused("torch", handler))

    @skipUnless(find_spec("torch"), "torch is not installed")
    def test_files(self) -> None:
        """A package that reads a format of weights is required only for such a file."""
        (self.dir / "m.onnx").write_bytes(b"")
        words = self.refused("onnxruntime", "base_handler", {"serializedFile": "m.onnx"})
        self.assertEqual(
            "m.onnx needs the package onnxruntime, which is not installed: pip install 'onnxruntime'", words
        )
        (self.dir / "m.safetensors").write_bytes(b"")
        words = self.refused(
            "safetensors", "base_handler", {"serializedFile": "m.safetensors", "modelFile": "model.py"}
        )
        self.assertIn("m.safetensors needs the package safetensors, which is not installed", words)

    def test_envelope(self) -> None:
        """The envelope of tensors needs numpy, whatever the handler."""
        (self.dir / "h.py").write_text("def handle(data, context):\n    return data\n")
        self.assertIn(
            "service_envelope kservev2 needs the package numpy", self.refused("numpy", "h.py", envelope="kservev2")
        )

    def test_broken(self) -> None:
        """Of a package that is there, but lacks another one, the error itself is the better reason."""
        (self.dir / "half_a_package.py").write_text("import another_that_is_not_there")
        self.patch(sys, "path", [str(self.dir), *sys.path])
        error = self.assertRaises(ModuleNotFoundError, needed, "half_a_package", "it")
        self.assertEqual("another_that_is_not_there", error.name)
