# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.models.settings` and `twisted_serve.models.version`."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.batching.sequences import SequenceLimits
from twisted_serve.config.options import ServerOptions
from twisted_serve.models.settings import (
    Layer,
    RequestedSettings,
    ServerDefaults,
    configured_layer,
    effective_settings,
    merge_layers,
)
from twisted_serve.models.version import ModelSettings

COMMON = ("batch_size", "max_batch_delay", "response_timeout", "startup_timeout")
JSON_KEYS = {
    "batch_size": "batchSize",
    "max_batch_delay": "maxBatchDelay",
    "response_timeout": "responseTimeout",
    "startup_timeout": "startupTimeout",
}
NUMBERS = st.none() | st.integers(1, 1000)
LAYERS = st.builds(Layer, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


def settings(
    request: RequestedSettings | None = None,
    config: ModelConfig | None = None,
    configured: Mapping[str, Any] | None = None,
    defaults: ServerDefaults | None = None,
    at_startup: bool = False,
) -> ModelSettings:
    return effective_settings(
        request or RequestedSettings(),
        config or ModelConfig(),
        configured or {},
        defaults or ServerDefaults(),
        at_startup,
    )


class PrecedenceTests(SynchronousTestCase):
    """Tests for the precedence of sources."""

    def test_defaults(self) -> None:
        """Without any other source, the documented defaults apply."""
        self.assertEqual(settings(), ModelSettings(0, 0, 1, 100, 120, 120, 100, 300, 0, "cpu", ()))

    def test_batch_policy(self) -> None:
        """The archive's batch policy takes precedence over the server's; every policy has a name."""
        defaults = ServerDefaults(batch_policy=ClosePolicy.WINDOW)
        self.assertIs(ClosePolicy.WINDOW, settings(defaults=defaults).batch_policy)
        for policy in ClosePolicy:
            config = ModelConfig(batch_policy=policy.value)
            self.assertIs(policy, settings(config=config, defaults=defaults).batch_policy)
            self.assertEqual(policy.value, ServerOptions(default_batch_policy=policy.value).default_batch_policy)

    def test_scaling(self) -> None:
        """The archive says how patient scaling is, in its own units, else the server does."""
        defaults = ServerDefaults(scale_up_delay=2.0, scale_idle_time=30.0, circuit_retry=0.0)
        made = settings(defaults=defaults)
        self.assertEqual((2.0, 30.0, 0.0), (made.scale_up_delay, made.scale_idle_time, made.circuit_retry))
        made = settings(config=ModelConfig(scale_up_delay=0, scale_idle_time=5), defaults=defaults)
        self.assertEqual((0.0, 5), (made.scale_up_delay, made.scale_idle_time))
        made = settings(config=ModelConfig(scale_up_delay=250))
        self.assertEqual((0.25, 300.0), (made.scale_up_delay, made.scale_idle_time))

    def test_second_tries(self) -> None:
        """The archive's retry settings take precedence over the server's; by default everything is retried."""
        self.assertEqual((True, True), (settings().isolate_failures, settings().retry_on_worker_death))
        self.assertFalse(settings(config=ModelConfig(isolate_failures=False)).isolate_failures)
        defaults = ServerDefaults(retry_on_worker_death=False)
        self.assertFalse(settings(defaults=defaults).retry_on_worker_death)
        self.assertTrue(
            settings(config=ModelConfig(retry_on_worker_death=True), defaults=defaults).retry_on_worker_death
        )

    def test_sequences(self) -> None:
        """A stateful model's limits are the archive's; a pause without limit is five minutes, or the whole life."""
        self.assertIsNone(settings(config=ModelConfig(max_num_sequence=5)).sequences)
        cases: list[tuple[dict[str, Any], SequenceLimits]] = [
            ({}, SequenceLimits(1, 1, 300.0, inf)),
            ({"sequence_max_idle": 0, "sequence_timeout": 0}, SequenceLimits(1, 1, 300.0, inf)),
            ({"sequence_timeout": 1500}, SequenceLimits(1, 1, 1.5, 1.5)),
            (
                {"max_num_sequence": 7, "max_sequence_job_queue_size": 3, "sequence_max_idle": 250},
                SequenceLimits(7, 3, 0.25, inf),
            ),
        ]
        for said, limits in cases:
            config = ModelConfig(sequence_batching=True, **said)
            self.assertEqual(settings(config=config).sequences, limits)

    def test_asynchronous(self) -> None:
        """Only a model that says so is asynchronous."""
        self.assertEqual(
            [settings(config=ModelConfig(async_communication=said)).asynchronous for said in (None, False, True)],
            [False, False, True],
        )

    def test_continuous(self) -> None:
        """Only a model with the setting batches continuously, and none with a handler that does the batching itself."""
        cases = [
            (None, None, False),
            (False, None, False),
            (True, None, True),
            (True, True, False),
            (None, True, False),
        ]
        for said, asynchronous, expected in cases:
            config = ModelConfig(continuous_batching=said, async_communication=asynchronous)
            self.assertEqual(settings(config=config).continuous, expected)

    def test_order(self) -> None:
        """The request beats the archive, the archive beats ``models``, and ``models`` beats the server's default."""
        for name in COMMON:
            with self.subTest(name):
                in_file: dict[str, Any] = {name: 2}
                request, config = RequestedSettings(**{name: 1}), ModelConfig(**in_file)
                configured = {JSON_KEYS[name]: 3}
                self.assertEqual(getattr(settings(request, config, configured), name), 1)
                self.assertEqual(getattr(settings(None, config, configured), name), 2)
                self.assertEqual(getattr(settings(None, None, configured), name), 3)

    def test_file_without_the_key(self) -> None:
        """An archive's file that does not mention a timeout leaves it to others, as it always should have."""
        config = ModelConfig(batch_size=4)
        self.assertEqual(settings(RequestedSettings(response_timeout=7), config).response_timeout, 7)
        self.assertEqual(settings(None, config, None, ServerDefaults(response_timeout=9)).response_timeout, 9)

    def test_not_given(self) -> None:
        """TorchServe's ways to write "not set" are understood in every source."""
        request = RequestedSettings(batch_size=-1, max_batch_delay=-10000, response_timeout=-1, startup_timeout=0)
        configured = {"batchSize": 0, "maxBatchDelay": -1, "responseTimeout": -5}
        self.assertEqual(settings(request, None, configured), settings())

    def test_no_delay(self) -> None:
        """A delay of 0 is one."""
        self.assertEqual(settings(RequestedSettings(max_batch_delay=0)).max_batch_delay, 0)
        self.assertEqual(settings(None, ModelConfig(max_batch_delay=0)).max_batch_delay, 0)
        self.assertEqual(settings(None, None, {"maxBatchDelay": 0}).max_batch_delay, 0)

    def test_configured_types(self) -> None:
        """A number in ``models`` may be text; a value that is not a number is refused by key and value."""
        self.assertEqual(configured_layer({"batchSize": "8", "maxBatchDelay": 5.0}), Layer(8, 5))
        value: Any
        for value in ("many", "", [], {}, True, 1.5, float("inf"), float("nan")):
            error = self.assertRaises(ValueError, configured_layer, {"batchSize": value})
            self.assertEqual(str(error), f"models has {value!r} for batchSize, expected an integer")

    @given(st.lists(LAYERS, max_size=5), LAYERS)
    def test_fold(self, layers: list[Layer], lower: Layer) -> None:
        """A source of lower precedence fills unset values and never changes others."""
        before, after = attrs.asdict(merge_layers(layers)), attrs.asdict(merge_layers([*layers, lower]))
        for name, value in before.items():
            self.assertEqual(after[name], getattr(lower, name) if value is None else value)

    @given(LAYERS, LAYERS, LAYERS)
    def test_effective_is_the_fold(self, request: Layer, config: Layer, configured: Layer) -> None:
        """The effective settings are the sources laid over each other."""
        json = {JSON_KEYS[name]: value for name, value in attrs.asdict(configured).items()}
        result = settings(RequestedSettings(**attrs.asdict(request)), ModelConfig(**attrs.asdict(config)), json)
        expected = merge_layers([request, config, configured, Layer(1, 100, 120, 120)])
        self.assertEqual({name: getattr(result, name) for name in COMMON}, attrs.asdict(expected))


class WorkersTests(SynchronousTestCase):
    """Tests for the number of workers."""

    def workers(self, **sources: Any) -> tuple[int, int]:
        result = settings(**sources)
        return result.min_workers, result.max_workers

    def test_request(self) -> None:
        """``initial_workers`` is the number, below 1 means none; without it the server's number applies unchanged."""
        self.assertEqual(self.workers(request=RequestedSettings(initial_workers=3)), (3, 3))
        self.assertEqual(
            self.workers(request=RequestedSettings(initial_workers=-1), defaults=ServerDefaults(workers=2)), (0, 0)
        )
        self.assertEqual(self.workers(defaults=ServerDefaults(workers=2)), (2, 2))
        self.assertEqual(self.workers(defaults=ServerDefaults(gpus=4, cpus=8)), (0, 0))

    def test_archive(self) -> None:
        """The archive's numbers beat the request's, if both are there and agree."""
        request = RequestedSettings(initial_workers=3)
        self.assertEqual(self.workers(request=request, config=ModelConfig(min_workers=1, max_workers=2)), (1, 2))
        for config in (
            ModelConfig(min_workers=1),
            ModelConfig(max_workers=2),
            ModelConfig(min_workers=3, max_workers=2),
        ):
            self.assertEqual(self.workers(request=request, config=config), (3, 3))

    def test_startup(self) -> None:
        """At start-up 0 means as many as GPUs, else as processors."""
        self.assertEqual(self.workers(defaults=ServerDefaults(gpus=4, cpus=8), at_startup=True), (4, 4))
        self.assertEqual(self.workers(defaults=ServerDefaults(cpus=8), at_startup=True), (8, 8))
        self.assertEqual(self.workers(defaults=ServerDefaults(workers=2, cpus=8), at_startup=True), (2, 2))

    def test_configured(self) -> None:
        """``models`` says how many, together or one of both."""
        eight = ServerDefaults(workers=8)
        self.assertEqual(self.workers(configured={"minWorkers": 2, "maxWorkers": 3}, defaults=eight), (2, 3))
        self.assertEqual(self.workers(configured={"minWorkers": 2}, defaults=eight), (2, 8))
        self.assertEqual(self.workers(configured={"maxWorkers": 3}, defaults=eight), (3, 3))
        self.assertEqual(self.workers(configured={"minWorkers": 9, "maxWorkers": 3}, defaults=eight), (9, 9))

    @given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 9), st.booleans())
    def test_always_agree(
        self,
        initial: int | None,
        least: int | None,
        most: int | None,
        low: int | None,
        high: int | None,
        default: int,
        at_startup: bool,
    ) -> None:
        """Whatever is said: the most workers are not fewer than the least."""
        low_workers, high_workers = self.workers(
            request=RequestedSettings(initial_workers=initial),
            config=ModelConfig(min_workers=least, max_workers=most),
            configured={"minWorkers": low, "maxWorkers": high},
            defaults=ServerDefaults(workers=default),
            at_startup=at_startup,
        )
        self.assertLessEqual(low_workers, high_workers)


class DeviceTests(SynchronousTestCase):
    """Tests for the choice of devices."""

    def device(self, gpus: int, config: ModelConfig) -> tuple[str, tuple[int, ...]]:
        result = settings(config=config, defaults=ServerDefaults(gpus=gpus))
        return result.device_type, result.device_ids

    def test_devices(self) -> None:
        """GPUs are used where there are some and the archive does not refuse them; its list counts if it is right."""
        self.assertEqual(self.device(0, ModelConfig(device_type="gpu", device_ids=(0,))), ("cpu", ()))
        self.assertEqual(self.device(2, ModelConfig()), ("gpu", ()))
        self.assertEqual(self.device(2, ModelConfig(device_type="cpu", device_ids=(0,))), ("cpu", ()))
        self.assertEqual(self.device(2, ModelConfig(device_ids=(1,))), ("gpu", (1,)))
        self.assertEqual(self.device(2, ModelConfig(device_ids=(1, 2))), ("gpu", ()))

    def test_others(self) -> None:
        """The rest comes from the archive or is the documented default; a queue of 0 is the server's."""
        config = ModelConfig(job_queue_size=0, max_retry_timeout=0, client_timeout=5)
        result = settings(config=config, defaults=ServerDefaults(job_queue_size=7))
        self.assertEqual((result.job_queue_size, result.max_retry_timeout, result.client_timeout), (7, 0, 5))
        self.assertEqual(settings(config=ModelConfig(job_queue_size=9)).job_queue_size, 9)


class ModelSettingsTests(SynchronousTestCase):
    """Tests for inconsistent settings."""

    def test_workers_disagree(self) -> None:
        """The most workers cannot be fewer than the least; both are named."""
        error = self.assertRaises(ValueError, ModelSettings, min_workers=2, max_workers=1)
        self.assertEqual(str(error), "max_workers is 1, below min_workers, which is 2")
