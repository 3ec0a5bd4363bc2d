# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.assembly.pools`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.archives.store import ModelArchive
from twisted_serve.assembly.dependencies import Dependencies
from twisted_serve.assembly.pools import pool_factory, settings_resolver
from twisted_serve.config.options import ServerOptions
from twisted_serve.interfaces import Placement
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.torchserve.definitions import parse_catalogue
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.wire.messages import MetricDefinition
from twisted_serve.workers.process.launch import load_message

ARCHIVE = ModelArchive("m", Path("/m"), Manifest(), ModelConfig())


class SettlingTests(SynchronousTestCase):
    """What a version gets of what the server has."""

    def test_usable_processors(self) -> None:
        """A start-up model has a worker for each processor that the server may run on."""
        self.patch(os, "sched_getaffinity", lambda pid: {0, 2, 5})
        settle = settings_resolver(ServerOptions(number_of_gpu=0), Dependencies(environ={}))
        settings = settle(RequestedSettings(), ARCHIVE, "m", "1.0", True)
        self.assertEqual((settings.min_workers, settings.max_workers), (3, 3))

    def test_wrong_models(self) -> None:
        """What ``models`` says of a version is looked at before there is one."""
        options = ServerOptions(models={"m": {"2.0": {"batchSize": "many"}}})
        error = self.assertRaises(ValueError, settings_resolver, options, Dependencies(environ={}))
        self.assertIn("for version 2.0 of model m", str(error))


class PoolMakingTests(SynchronousTestCase):
    """What a version's workers get of the server."""

    def test_metrics(self) -> None:
        """Workers are told what metrics_config defines for handlers, in every mode: the host's label is not theirs."""
        text = "ts_metrics: {}\nmodel_metrics: {gauge: [{name: Size, unit: count, dimensions: [ModelName]}]}"
        for mode in ("log", "prometheus", "legacy"):
            clock = Clock()
            provider = FakeProvider(clock)
            metrics = ServerMetrics("h", parse_catalogue(text), mode)
            options = ServerOptions(metrics_mode=mode)
            dependencies = Dependencies(environ={})
            make_pool = pool_factory(clock, options, dependencies, provider, {}, metrics)  # type: ignore[arg-type]
            settings = ModelSettings(min_workers=1, max_workers=1)
            version = ModelVersion(
                name="m",
                version="1.0",
                url="m.mar",
                model_dir=Path("/m"),
                manifest=Manifest(),
                config=ModelConfig(),
                handler="h.py",
                settings=settings,
            )
            make_pool(version).start()
            spec = provider.workers[0].spec
            self.assertEqual([MetricDefinition("Size", "count", "gauge", ["ModelName"])], spec.load.metrics)
            self.assertEqual(spec.load.metrics, load_message(spec, Placement("9000")).metrics)
