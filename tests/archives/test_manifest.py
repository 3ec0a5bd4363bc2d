# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.manifest`."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archives.model_directory_case import ModelDirectoryTestCase
from twisted_serve.archives.manifest import MANIFEST_PATH, Manifest, read_manifest
from twisted_serve.errors import InvalidModel


class ManifestTests(ModelDirectoryTestCase):
    """Tests for manifests."""

    def test_whole(self) -> None:
        """The archiver's manifest is understood, and kept as it is for the handler."""
        document = {
            "createdOn": "02/01/2026 11:11:11",
            "runtime": "python3",
            "model": {
                "modelName": "m",
                "serializedFile": "w.pt",
                "handler": "h.py",
                "modelFile": "net.py",
                "modelVersion": "2.1",
                "requirementsFile": "r.txt",
                "configFile": "c.yaml",
            },
            "archiverVersion": "0.12.0",
        }
        self.write(json.dumps(document))
        self.assertEqual(
            read_manifest(self.model),
            Manifest("m", "2.1", "h.py", "w.pt", "net.py", "r.txt", "c.yaml", "python3", document),
        )

    def test_every_field(self) -> None:
        """Fields of old archives, and fields that no archiver writes, are no hindrance, whatever is in them."""
        (self.model / "vocab.txt").touch()
        model = {"modelName": "m", "modelVersion": "1", "extensions": {"a": 1}, "envelope": "json", "description": [1]}
        document = {"model": {**model, "sourceVocab": "vocab.txt", "version": 2}, "description": {}, "new": 1}
        self.write(json.dumps(document))
        manifest = read_manifest(self.model)
        self.assertEqual((manifest.model_name, manifest.raw), ("m", document))

    def test_none(self) -> None:
        """A directory without a manifest is a nameless model of version 1.0 for Python."""
        manifest = read_manifest(self.model)
        self.assertEqual(manifest, Manifest())
        self.assertEqual(
            (manifest.model_name, manifest.model_version, manifest.runtime, manifest.raw), (None, "1.0", "python", {})
        )

    def test_little(self) -> None:
        """
        Everything in the model entry is optional; empty strings and null count as absent; a number is read as text.
        """
        self.assertEqual(self.manifest().model_version, "1.0")
        manifest = self.manifest(modelName="", handler=None, modelVersion=2.5, unknown=[1])
        self.assertEqual((manifest.model_name, manifest.handler, manifest.model_version), (None, None, "2.5"))

    def assertInvalid(self, text: str) -> None:
        self.assertTrue(self.assertRaises(InvalidModel, read_manifest, self.model).message.startswith(text))

    def test_malformed(self) -> None:
        """A manifest that cannot be parsed is refused with TorchServe's text."""
        for text in ("", "{", "[]", "1", '{"model": []}', '{"model": "m"}', "[" * 100_000, " " * 300_000 + "{}"):
            self.write(text)
            self.assertInvalid("Failed to parse signature.json.")
        (self.model / MANIFEST_PATH).unlink()
        (self.model / MANIFEST_PATH).mkdir()
        self.assertInvalid("Failed to parse signature.json.")

    def test_missing_model(self) -> None:
        """A manifest without a model entry is refused with TorchServe's text."""
        for text in ("{}", '{"model": null}'):
            self.write(text)
            self.assertInvalid("Missing Model entry in manifest file.")

    def test_runtime(self) -> None:
        """A runtime other than the three known ones is refused with TorchServe's text."""
        for runtime in ("PYTHON", "java", None, 3, ["python"]):
            self.write(json.dumps({"runtime": runtime, "model": {}}))
            self.assertInvalid("Runtime is not defined or invalid.")

    def test_wrong_types(self) -> None:
        """An entry that is no text is refused by name and value."""
        for entry in ("modelName", "modelVersion", "handler", "configFile"):
            value: Any
            for value in ([], {"a": 1}, True):
                error = self.assertRaises(InvalidModel, self.manifest, **{entry: value})
                self.assertEqual(error.message, f"Manifest entry {entry} is {value!r}, expected a string.")

    def test_files_stay_inside(self) -> None:
        """
        No entry leads out of the model directory.

        TorchServe reads ``configFile`` from, and passes ``requirementsFile`` to pip at, any path.
        """
        (self.model / "out").symlink_to(self.root)
        for entry in ("serializedFile", "modelFile", "handler", "requirementsFile", "configFile", "sourceVocab"):
            for value in ("../secret", "/etc/passwd", "a/../../secret", "out/secret", "..\\secret", "%2e%2e/secret"):
                with self.subTest(entry=entry, value=value):
                    error = self.assertRaises(InvalidModel, self.manifest, **{entry: value})
                    self.assertEqual(
                        error.message, f"Manifest entry {entry} is {value!r}, which is not inside the model directory."
                    )

    def test_handler_with_function(self) -> None:
        """The file of a handler is the part before the colon."""
        self.assertEqual(self.manifest(handler="h.py:run").handler, "h.py:run")
        for value in ("../h.py:run", "/h:run", ":run"):
            self.assertIn(
                "Manifest entry handler", self.assertRaises(InvalidModel, self.manifest, handler=value).message
            )

    def test_manifest_is_inside(self) -> None:
        """The manifest itself is not read from elsewhere."""
        (self.root / "other.json").write_text('{"model": {"modelName": "secret"}}')
        (self.model / MANIFEST_PATH).symlink_to(self.root / "other.json")
        self.assertInvalid("Manifest entry MAR-INF/MANIFEST.json")

    def test_values_validate(self) -> None:
        """A manifest that is made by hand is checked, too."""
        self.assertRaises(ValueError, Manifest, model_version="")
        self.assertRaises(ValueError, Manifest, runtime="java")

    @given(
        st.dictionaries(
            st.sampled_from(["modelName", "handler", "configFile", "modelVersion", "sourceVocab"]),
            st.text(max_size=12) | st.integers() | st.none() | st.lists(st.none()),
        )
    )
    @settings(deadline=None)
    def test_any_model(self, model: dict[str, Any]) -> None:
        """Any entries form a manifest with all files inside, or are refused."""
        try:
            manifest = self.manifest(**model)
        except InvalidModel:
            return
        for name in (manifest.config_file, (manifest.handler or "x").partition(":")[0]):
            if name is not None:
                self.assertTrue((self.model / name).resolve().is_relative_to(self.model.resolve()))
