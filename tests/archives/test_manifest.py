# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.manifest` and `twisted_serve.archives.model_config`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.manifest import MANIFEST_PATH, Manifest, read_manifest
from twisted_serve.archives.model_config import CONFIG_KEYS, ModelConfig, read_model_config
from twisted_serve.archives.sections import Torchrun
from twisted_serve.errors import InvalidModel

KEYS = [key for key in CONFIG_KEYS if key not in ("pt2", "handler", "micro_batching")]


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


class ManifestTests(ModelDirectoryTestCase):
    """What manifests say."""

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
        """Everything in the model entry is optional; what is empty or null is absent; a number is text."""
        self.assertEqual(self.manifest().model_version, "1.0")
        manifest = self.manifest(modelName="", handler=None, modelVersion=2.5, unknown=[1])
        self.assertEqual((manifest.model_name, manifest.handler, manifest.model_version), (None, None, "2.5"))

    def assertInvalid(self, text: str) -> None:
        self.assertTrue(self.assertRaises(InvalidModel, read_manifest, self.model).message.startswith(text))

    def test_malformed(self) -> None:
        """A manifest that cannot be read is told of with the predecessor's text."""
        for text in ("", "{", "[]", "1", '{"model": []}', '{"model": "m"}', "[" * 100_000, " " * 300_000 + "{}"):
            self.write(text)
            self.assertInvalid("Failed to parse signature.json.")
        (self.model / MANIFEST_PATH).unlink()
        (self.model / MANIFEST_PATH).mkdir()
        self.assertInvalid("Failed to parse signature.json.")

    def test_missing_model(self) -> None:
        """A manifest without a model entry is refused with the predecessor's text."""
        for text in ("{}", '{"model": null}'):
            self.write(text)
            self.assertInvalid("Missing Model entry in manifest file.")

    def test_runtime(self) -> None:
        """A runtime that is none of the three is refused with the predecessor's text."""
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

        The predecessor read ``configFile`` and handed ``requirementsFile`` to pip wherever they pointed.
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
        """Any entries are a manifest whose files are inside, or are refused."""
        try:
            manifest = self.manifest(**model)
        except InvalidModel:
            return
        for name in (manifest.config_file, (manifest.handler or "x").partition(":")[0]):
            if name is not None:
                self.assertTrue((self.model / name).resolve().is_relative_to(self.model.resolve()))


class ModelConfigTests(ModelDirectoryTestCase):
    """What ``model-config.yaml`` says."""

    def test_none(self) -> None:
        """Without a file nothing is set; an empty file is like none."""
        self.assertEqual(read_model_config(self.model, Manifest()), (ModelConfig(), ()))
        self.assertEqual(self.config(""), (ModelConfig(), ()))

    def test_whole(self) -> None:
        """All keys are understood; the file is kept as it is for the handler."""
        document: dict[str, Any] = {
            "minWorkers": 1,
            "maxWorkers": 2,
            "batchSize": 4,
            "maxBatchDelay": 0,
            "responseTimeout": 10,
            "startupTimeout": 20,
            "deviceType": "GPU",
            "deviceIds": [1, 0],
            "parallelType": "tp",
            "parallelLevel": 2,
            "torchrun": {"nproc-per-node": 2},
            "maxRetryTimeoutInSec": 0,
            "clientTimeoutInMills": 5,
            "jobQueueSize": 7,
            "useJobTicket": True,
            "continuousBatching": False,
            "sequenceBatching": True,
            "sequenceMaxIdleMSec": 1,
            "sequenceTimeoutMSec": 2,
            "maxNumSequence": 3,
            "maxSequenceJobQueueSize": 4,
            "asyncCommunication": False,
            "useVenv": True,
            "batchPolicy": "Adaptive",
            "shareWeights": False,
            "handler": {"anything": ["goes"], "profile": True},
            "pt2": {"compile": {"enable": True, "backend": "inductor", "mode": "x"}, "export": {"aot_compile": False}},
            "micro_batching": {"micro_batch_size": 2, "parallelism": {"preprocess": 1, "inference": 2}},
            "scaleUpDelayInMills": 250,
            "scaleIdleTimeInSec": 60,
            "isolateFailures": False,
            "retryOnWorkerDeath": True,
        }
        config, warnings = self.config(yaml.safe_dump(document))
        self.assertTrue(all("not there yet" in each for each in warnings), warnings)
        self.assertEqual(len(warnings), 2)
        self.assertEqual(
            config,
            ModelConfig(
                1,
                2,
                4,
                0,
                10,
                20,
                "gpu",
                (1, 0),
                "tp",
                2,
                Torchrun(nproc_per_node=2),
                0,
                5,
                7,
                True,
                False,
                True,
                1,
                2,
                3,
                4,
                False,
                True,
                document,
                batch_policy="adaptive",
                scale_up_delay=250,
                scale_idle_time=60,
                isolate_failures=False,
                retry_on_worker_death=True,
                share_weights=False,
            ),
        )
        self.assertEqual(config.workers, (1, 2))
        self.assertEqual(set(document), set(CONFIG_KEYS))

    def test_wrong_types(self) -> None:
        """A value of the wrong type is refused with its key, the value and what was expected."""
        for text, message in (
            ("batchSize: '4'", "batchSize is '4', expected an integer of at least 1"),
            ("batchSize: 0", "batchSize is 0, expected an integer of at least 1"),
            ("batchSize: true", "batchSize is True, expected an integer of at least 1"),
            ("maxBatchDelay: -1", "maxBatchDelay is -1, expected an integer of at least 0"),
            ("maxWorkers: 2147483648", "maxWorkers is 2147483648, expected an integer of at least 0"),
            ("minWorkers: 1.5", "minWorkers is 1.5, expected an integer of at least 0"),
            ("useVenv: 1", "useVenv is 1, expected true or false"),
            ("deviceType: 1", "deviceType is 1, expected a string"),
            ("deviceIds: 0", "deviceIds is 0, expected a list of integers of at least 0"),
            ("deviceIds: [-1]", "deviceIds is (-1,), expected a list of integers of at least 0"),
            ("deviceIds: [true]", "deviceIds is (True,), expected a list of integers of at least 0"),
            ("torchrun: [1]", "torchrun is [1], expected a mapping"),
            ("torchrun: {1: 2}", "torchrun is {1: 2}, expected a mapping with strings as keys"),
            ("torchrun: {nnodes: two}", "torchrun.nnodes is 'two', expected an integer of at least 1"),
            ("torchrun: {rdzv-backend: 1}", "torchrun.rdzv-backend is 1, expected a string"),
            ("pt2: 1", "pt2 is 1, expected a mapping, or the name of a backend"),
            ("pt2: {compile: true}", "pt2.compile is True, expected a mapping"),
            ("pt2: {compile: {enable: 1}}", "pt2.compile.enable is 1, expected true or false"),
            ("pt2: {compile: {backend: []}}", "pt2.compile.backend is [], expected a string"),
            ("pt2: {export: {aot_compile: x}}", "pt2.export.aot_compile is 'x', expected true or false"),
            ("handler: [a]", "handler is ['a'], expected a mapping"),
            ("handler: {profile: x}", "handler.profile is 'x', expected true or false"),
            ("micro_batching: 4", "micro_batching is 4, expected a mapping"),
            (
                "micro_batching: {micro_batch_size: 0}",
                "micro_batching.micro_batch_size is 0, expected an integer of at least 1",
            ),
            (
                "micro_batching: {parallelism: {inference: x}}",
                "micro_batching.parallelism.inference is 'x', expected an integer of at least 1",
            ),
        ):
            with self.subTest(text):
                error = self.assertRaises(InvalidModel, self.config, text)
                self.assertEqual(error.message, f"Invalid model config file c.yaml: {message}")

    def test_null_is_absent(self) -> None:
        """A key without a value is absent."""
        config, _ = self.config("batchSize:\ndeviceType: ~")
        self.assertIsNone(config.batch_size)
        self.assertIsNone(config.device_type)

    def test_torchrun(self) -> None:
        """The block has the predecessor's defaults, decides on the level, and names what it does not know."""
        config, warnings = self.config("parallelLevel: 8\ntorchrun: {nproc-per-node: 4, max-restarts: 3, rdzv-id: x}")
        self.assertEqual(config.torchrun, Torchrun(1, 4, "c10d", None, None, 5, 0, 1))
        self.assertEqual(config.parallel_level, 4)
        self.assertEqual(
            warnings[:-1],
            tuple(
                f"Unsupported parameter {key!r} of torchrun in model config file c.yaml: it is ignored"
                for key in ("max-restarts", "rdzv-id")
            ),
        )

    def test_sections_of_handlers(self) -> None:
        """What belongs to handlers is free, and so are old forms and sections that nobody here knows."""
        text = "pt2: inductor\nhandler: {}\nmicro_batching:\ndeepspeed: {config: x}\npippy: 1\nwhatever: [1]"
        self.assertEqual(self.config(text)[1], ())
        self.assertEqual(self.config("pt2: {backend: inductor, mode: default}")[1], ())

    def test_unusable(self) -> None:
        """A file that is missing, is no YAML or no mapping is refused with its name."""
        for text in ("a: [", "- 1", "text", "1: 2", "a: &a [*a]"):
            error = self.assertRaises(InvalidModel, self.config, text)
            self.assertTrue(error.message.startswith("Failed to parse model config file c.yaml: "))
        error = self.assertRaises(InvalidModel, read_model_config, self.model, Manifest(config_file="gone.yaml"))
        self.assertEqual(error.message, "Failed to parse model config file gone.yaml: No such file or directory")

    def test_outside(self) -> None:
        """The file is looked for in the model directory only, whoever made the manifest."""
        self.assertRaises(InvalidModel, read_model_config, self.model, Manifest(config_file="../c.yaml"))

    def test_slips(self) -> None:
        """A key that is nearly one of ours is warned about; others are the handler's."""
        _, warnings = self.config(
            "BatchSize: 4\nmax_batch_delay: 1\nresponseTimeOut: 9\nhandler: {}\npt2: {}\nmicro_batching: {}"
        )
        self.assertEqual(
            warnings,
            (
                "Unknown key 'BatchSize' in model config file c.yaml: did you mean 'batchSize'?",
                "Unknown key 'max_batch_delay' in model config file c.yaml: did you mean 'maxBatchDelay'?",
                "Unknown key 'responseTimeOut' in model config file c.yaml: did you mean 'responseTimeout'?",
            ),
        )

    def test_many_slips(self) -> None:
        """A file cannot fill the log with warnings, or our time with guesses."""
        _, warnings = self.config("\n".join(f"{'_' * i}batchSize: 1" for i in range(1, 100)))
        self.assertEqual(len(warnings), 10)

    def test_unknown_words(self) -> None:
        """A device that the predecessor did not know either is warned about and ignored."""
        config, warnings = self.config("deviceType: neuron\nparallelType: xx")
        self.assertEqual((config.device_type, config.parallel_type), (None, None))
        self.assertEqual(warnings[0], "Invalid deviceType 'neuron' in model config file c.yaml: it is ignored")
        self.assertEqual(len(warnings), 2)

    def test_not_there_yet(self) -> None:
        """Whoever registers a model that wants what we have not is told."""
        for text, begins in (
            ("parallelType: pp", "parallelType and torchrun are not there yet"),
            ("torchrun: {nproc-per-node: 2}", "parallelType and torchrun are not there yet"),
            ("useJobTicket: true", "useJobTicket is not there yet"),
        ):
            _config, warnings = self.config(text)
            self.assertEqual(len(warnings), 1)
            self.assertTrue(warnings[0].startswith(begins), warnings)
        self.assertEqual(self.config("continuousBatching: true\nuseJobTicket: false")[1], ())

    def test_no_effect(self) -> None:
        """Whoever registers a model that wants two things which exclude each other is told."""
        _config, warnings = self.config("continuousBatching: true\nasyncCommunication: true")
        self.assertEqual(len(warnings), 1)
        self.assertTrue(warnings[0].startswith("continuousBatching has no effect with asyncCommunication"), warnings)
        self.assertEqual(self.config("continuousBatching: false\nasyncCommunication: true")[1], ())

    def test_workers_disagree(self) -> None:
        """Least and most workers count only together and in order; otherwise a warning says so."""
        for text in ("minWorkers: 2", "maxWorkers: 2", "minWorkers: 3\nmaxWorkers: 2", "minWorkers: 2\nmaxWorkers: 0"):
            config, warnings = self.config(text)
            self.assertIsNone(config.workers)
            self.assertTrue(warnings[0].startswith("Invalid model config in mar, minWorkers:"), warnings)
        self.assertEqual(self.config("minWorkers: 2\nmaxWorkers: 2")[0].workers, (2, 2))
        self.assertEqual(self.config("minWorkers: 0\nmaxWorkers: 2")[0].workers, (0, 2))

    @given(
        st.dictionaries(
            st.sampled_from(KEYS), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(-1, 3))
        )
    )
    @settings(deadline=None)
    def test_any_values(self, document: dict[str, Any]) -> None:
        """Any values for our keys are a configuration that says the same, or are refused by key."""
        try:
            config, _ = self.config(yaml.safe_dump(document))
        except InvalidModel as e:
            self.assertTrue(
                any(key in e.message for key in document) or "bits" in e.message or "surrogate" in e.message
            )
        else:
            for key in ("batchSize", "minWorkers"):
                said = {"batchSize": config.batch_size, "minWorkers": config.min_workers}[key]
                self.assertEqual(said, document.get(key))
