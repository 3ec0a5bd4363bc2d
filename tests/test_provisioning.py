# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.provisioning`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.archives.store import ModelArchive
from twisted_serve.config.options import ServerOptions
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.provisioning import settling
from twisted_serve.surroundings import Surroundings

ARCHIVE = ModelArchive("m", Path("/m"), Manifest(), ModelConfig())


class SettlingTests(SynchronousTestCase):
    """What a version gets of what the server has."""

    def test_usable_processors(self) -> None:
        """A start-up model has a worker for each processor that the server may run on."""
        self.patch(os, "sched_getaffinity", lambda pid: {0, 2, 5})
        settle = settling(ServerOptions(number_of_gpu=0), Surroundings(environ={}))
        settings = settle(RequestedSettings(), ARCHIVE, "m", "1.0", True)
        self.assertEqual((settings.min_workers, settings.max_workers), (3, 3))

    def test_wrong_models(self) -> None:
        """What ``models`` says of a version is looked at before there is one."""
        options = ServerOptions(models={"m": {"2.0": {"batchSize": "many"}}})
        error = self.assertRaises(ValueError, settling, options, Surroundings(environ={}))
        self.assertIn("for version 2.0 of model m", str(error))
