# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.planes.catalogue``.
"""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import Conflict, InvalidModelVersion, ModelNotFound, ModelVersionNotFound, ServiceUnavailable
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.testing.strategies.models import model_versions


def version(name: str = "m", version: str = "1.0") -> ModelVersion:
    """Make a version of a model."""
    settings = ModelSettings(min_workers=0)
    return ModelVersion(
        name, version, f"{name}.mar", Path("/m"), Manifest(name, version), ModelConfig(), "h.py", settings
    )


def pool() -> Pool:
    """Make a pool without workers."""
    clock, ids = Clock(), count(9000)
    spec = worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)
    return Pool(
        spec,
        ModelSettings(min_workers=0),
        FakeProvider(clock),
        clock,
        lambda: datetime(2026, 1, 1, tzinfo=timezone.utc),
        worker_ids=lambda: str(next(ids)),
    )


class CatalogueTests(SynchronousTestCase):
    """Tests for the versions and their workers."""

    def setUp(self) -> None:
        self.catalogue = Catalogue()

    def add(self, *models: ModelVersion) -> list[Pool]:
        pools = [pool() for _ in models]
        for model, workers in zip(models, pools, strict=True):
            self.catalogue.add(model, workers)
        return pools

    def test_add(self) -> None:
        """What was added is found, with its workers, by its version or as the default."""
        first, second = version(), version(version="2.0")
        pools = self.add(first, second)
        self.assertIs(self.catalogue.resolve("m", None), first)
        self.assertIs(self.catalogue.resolve("m", "2.0"), second)
        self.assertEqual([self.catalogue.pool_of(model) for model in (first, second)], pools)
        self.assertEqual(list(self.catalogue), list(zip((first, second), pools, strict=True)))

    def test_conflict(self) -> None:
        """What is there is not replaced."""
        first = version()
        [workers] = self.add(first)
        self.assertRaises(Conflict, self.add, version())
        self.assertIs(self.catalogue.pool_of(first), workers)

    def test_absent(self) -> None:
        """What is not there is not found, by name or by version."""
        self.add(version())
        self.assertRaises(ModelNotFound, self.catalogue.resolve, "absent", None)
        self.assertRaises(ModelVersionNotFound, self.catalogue.resolve, "m", "9")

    def test_while_starting(self) -> None:
        """While start-up models are still to come, one that is not there may be asked for again soon."""
        self.catalogue.starting = True
        error = self.assertRaises(ServiceUnavailable, self.catalogue.resolve, "m", None)
        self.assertEqual(error.retry_after, 1)
        self.add(version())
        self.catalogue.resolve("m", None)
        self.assertRaises(ModelVersionNotFound, self.catalogue.resolve, "m", "9")

    def test_remove(self) -> None:
        """What is removed is gone with its workers, and handed over; the default of several stays."""
        first, second = version(), version(version="2.0")
        pools = self.add(first, second)
        self.assertRaises(InvalidModelVersion, self.catalogue.remove, "m", None)
        self.assertEqual(self.catalogue.remove("m", "2.0"), (second, pools[1]))
        self.assertEqual(self.catalogue.remove("m", None), (first, pools[0]))
        self.assertEqual(list(self.catalogue), [])
        self.assertRaises(ModelNotFound, self.catalogue.remove, "m", None)

    def test_forget(self) -> None:
        """A version whose registration failed is forgotten, the default one too: another takes its place."""
        first, second = version(), version(version="2.0")
        self.add(first, second)
        self.assertTrue(self.catalogue.forget(first))
        self.assertIs(self.catalogue.resolve("m", None), second)
        self.assertTrue(self.catalogue.forget(second))
        self.assertEqual(list(self.catalogue), [])

    def test_forget_what_is_gone(self) -> None:
        """Forgetting a version which somebody has removed since leaves alone what has come in its place."""
        first, successor = version(), version()
        self.add(first)
        self.catalogue.remove("m", None)
        self.assertFalse(self.catalogue.forget(first))
        [workers] = self.add(successor)
        self.assertFalse(self.catalogue.forget(first))
        self.assertEqual(list(self.catalogue), [(successor, workers)])

    @given(
        st.lists(model_versions(names=st.sampled_from("ab")), max_size=6, unique_by=lambda m: (m.name, m.version)),
        st.data(),
    )
    def test_any_forgetting(self, models: list[ModelVersion], data: st.DataObject) -> None:
        """Whatever is forgotten, each model that is left has a default, and each version its own workers."""
        catalogue = Catalogue()
        left = [(model, pool()) for model in models]
        for model, workers in left:
            catalogue.add(model, workers)
        for model in data.draw(st.permutations(models)):
            self.assertTrue(catalogue.forget(model))
            left = [(other, workers) for other, workers in left if other is not model]
            self.assertEqual(list(catalogue), left)
            for other, _workers in left:
                self.assertEqual(catalogue.resolve(other.name, None).name, other.name)
