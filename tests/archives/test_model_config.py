# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.model_config`."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archives.model_directory_case import ModelDirectoryTestCase
from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import CONFIG_KEYS, ModelConfig, read_model_config
from twisted_serve.archives.sections import Torchrun
from twisted_serve.errors import InvalidModel

KEYS = [key for key in CONFIG_KEYS if key not in ("pt2", "handler", "micro_batching")]


class ModelConfigTests(ModelDirectoryTestCase):
    """Tests for ``model-config.yaml``."""

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
            "openInference": True,
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
                open_inference=True,
            ),
        )
        self.assertEqual(config.workers, (1, 2))
        self.assertEqual(set(document), set(CONFIG_KEYS))

    def test_wrong_types(self) -> None:
        """A value of the wrong type is refused with its key, the value and what was expected."""
        for text, message in (
            ("batchSize: four", "batchSize is 'four', expected an integer of at least 1"),
            ("batchSize: '4.0'", "batchSize is '4.0', expected an integer of at least 1"),
            ("batchSize: .inf", "batchSize is inf, expected an integer of at least 1"),
            ("batchSize: [4]", "batchSize is [4], expected an integer of at least 1"),
            ("useVenv: 'on'", "useVenv is 'on', expected true or false"),
            ("deviceIds: '0,one'", "deviceIds is (0, 'one'), expected a list of integers of at least 0"),
            ("batchSize: true", "batchSize is True, expected an integer of at least 1"),
            ("maxWorkers: 2147483648", "maxWorkers is 2147483648, expected an integer of at least 0"),
            ("minWorkers: 1.5", "minWorkers is 1.5, expected an integer of at least 0"),
            ("useVenv: 1", "useVenv is 1, expected true or false"),
            ("deviceType: 1", "deviceType is 1, expected a string"),
            ("deviceIds: [-1]", "deviceIds is (-1,), expected a list of integers of at least 0"),
            ("deviceIds: [true]", "deviceIds is (True,), expected a list of integers of at least 0"),
            ("torchrun: [1]", "torchrun is [1], expected a mapping"),
            ("torchrun: {1: 2}", "torchrun is {1: 2}, expected a mapping with strings as keys"),
            ("torchrun: {nnodes: two}", "torchrun.nnodes is 'two', expected an integer of at least 1"),
            ("torchrun: {rdzv-backend: 1}", "torchrun.rdzv-backend is 1, expected a string"),
        ):
            with self.subTest(text):
                error = self.assertRaises(InvalidModel, self.config, text)
                self.assertEqual(error.message, f"Invalid model config file c.yaml: {message}")

    def test_spellings(self) -> None:
        """What is plainly a number is one, quoted or with a fraction of zero; so is a boolean, in any case."""
        config, warnings = self.config(
            "minWorkers: '1'\nmaxWorkers: 2.0\nbatchSize: '+4'\nresponseTimeout: 60.0\nuseVenv: 'True'\n"
            "sequenceBatching: \"false\"\ntorchrun: {nproc-per-node: '2'}"
        )
        self.assertEqual(config.workers, (1, 2))
        self.assertEqual((config.batch_size, config.response_timeout), (4, 60))
        self.assertEqual((config.use_venv, config.sequence_batching, config.parallel_level), (True, False, 2))
        self.assertIsInstance(config.max_workers, int)
        self.assertEqual(len(warnings), 1, warnings)
        for text in ("deviceIds: '0, 1'", "deviceIds: ['0', 1.0]", "deviceIds: [0, 1]"):
            self.assertEqual(self.config(text)[0].device_ids, (0, 1))
        self.assertEqual(self.config("deviceIds: 1")[0].device_ids, (1,))

    def test_too_small(self) -> None:
        """A number that is too small is replaced as by TorchServe, with a warning."""
        for text, attribute, value in (
            ("jobQueueSize: -1", "job_queue_size", 0),
            ("batchSize: 0", "batch_size", 1),
            ("maxBatchDelay: -1", "max_batch_delay", None),
            ("responseTimeout: 0", "response_timeout", None),
            ("startupTimeout: '-1'", "startup_timeout", None),
            ("maxRetryTimeoutInSec: -1", "max_retry_timeout", 0),
            ("clientTimeoutInMills: -5", "client_timeout", 0),
            ("maxNumSequence: 0", "max_num_sequence", 1),
            ("maxSequenceJobQueueSize: 0", "max_sequence_job_queue_size", 1),
            ("sequenceTimeoutMSec: -1", "sequence_timeout", 0),
        ):
            config, warnings = self.config(text)
            self.assertEqual(getattr(config, attribute), value, text)
            key, _, number = text.partition(": ")
            self.assertIn(f"Invalid {key} {number.strip(chr(39))} in model config file c.yaml: it ", warnings[0])
        self.assertEqual(self.config("minWorkers: -1\nmaxWorkers: 2")[0].workers, (1, 2))

    def test_blocks_of_the_handler(self) -> None:
        """What the handler reads is its own, whatever its shape; what looks wrong is a warning."""
        for text, warning in (
            ("pt2: 1", "pt2 is 1, expected a mapping, or the name of a backend"),
            ("pt2: {compile: true}", "pt2.compile is True, expected a mapping"),
            ("pt2: {compile: {enable: 1}}", "pt2.compile.enable is 1, expected true or false"),
            ("pt2: {compile: {backend: []}}", "pt2.compile.backend is [], expected a string"),
            ("pt2: {export: {aot_compile: x}}", "pt2.export.aot_compile is 'x', expected true or false"),
            ("handler: my_handler", "handler is 'my_handler', expected a mapping"),
            ("handler: [a]", "handler is ['a'], expected a mapping"),
            ("handler: {profile: x}", "handler.profile is 'x', expected true or false"),
            ("handler: {1: 2}", "handler is {1: 2}, expected a mapping with strings as keys"),
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
            config, warnings = self.config(text)
            self.assertEqual(warnings, (f"{warning}, in model config file c.yaml: it is left to the handler",))
            self.assertEqual(config.raw, yaml.safe_load(text))

    def test_null_is_absent(self) -> None:
        """A key without a value is absent."""
        config, _ = self.config("batchSize:\ndeviceType: ~")
        self.assertIsNone(config.batch_size)
        self.assertIsNone(config.device_type)

    def test_torchrun(self) -> None:
        """The section has TorchServe's defaults, sets the parallel level, and unknown keys are named."""
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
        """Handlers' sections, older forms and unknown sections are accepted."""
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
        """The file must be inside the model directory."""
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
        """A device that TorchServe does not know, either, is ignored with a warning."""
        config, warnings = self.config("deviceType: neuron\nparallelType: xx")
        self.assertEqual((config.device_type, config.parallel_type), (None, None))
        self.assertEqual(warnings[0], "Invalid deviceType 'neuron' in model config file c.yaml: it is ignored")
        self.assertEqual(len(warnings), 2)

    def test_not_there_yet(self) -> None:
        """A model that needs unsupported features is registered with a warning."""
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
        """A model with mutually exclusive settings is registered with a warning."""
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
            for key, said in (("batchSize", config.batch_size), ("minWorkers", config.min_workers)):
                number = document.get(key)
                self.assertEqual(
                    said,
                    None if number is None else max(1 if int(number) < 0 or key == "batchSize" else 0, int(number)),
                )
