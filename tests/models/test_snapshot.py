# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.models.snapshot`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.models.registry import Registry
from twisted_serve.models.snapshot import InvalidSnapshot, RecordedVersion, Snapshot, read, render, take
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.testing.strategies.models import registries

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, timezone.utc)

# The snapshot in TorchServe's image for KServe.
THEIRS = (
    '{"name":"startup.cfg","modelCount":1,"models":{"mnist":{"1.0":{"defaultVersion":true,"marName":"mnist.mar",'
    '"minWorkers":1,"maxWorkers":5,"batchSize":1,"maxBatchDelay":5000,"responseTimeout":120}}}}'
)


def version(url: str = "m.mar", number: str = "1.0", directory: str = "/w/m", **changes: Any) -> ModelVersion:
    manifest = Manifest("m", number, handler="h.py")
    model = ModelVersion("m", number, url, Path(directory), manifest, ModelConfig(), "h.py", ModelSettings())
    return evolve(model, **changes)


def workers_of(registry: Registry) -> dict[tuple[str, str], tuple[int, int]]:
    return {(m.name, m.version): (m.settings.min_workers, m.settings.max_workers) for m in registry}


def recorded(model: ModelVersion) -> RecordedVersion:
    registry = Registry().register(model)
    [only] = take(registry, workers_of(registry)).versions
    return only


def refusal(**members: Any) -> str:
    """Return the error for a snapshot of one version with these members."""
    try:
        read({"models": {"m": {"1.0": {"marName": "m.mar", **members}}}})
    except InvalidSnapshot as e:
        return str(e)
    raise AssertionError("it was read")


class FormatTests(SynchronousTestCase):
    """Tests for the JSON of ``model_snapshot``."""

    @given(registries())
    def test_round_trip(self, registry: Registry) -> None:
        """What was written is read back, each version with its numbers, in order, and the default ones."""
        snapshot = take(registry, workers_of(registry))
        again = read(json.loads(render(snapshot, "x.cfg", MOMENT)))
        self.assertEqual(again, snapshot)
        self.assertEqual(again.defaults(), {m.name: registry.default_version(m.name) for m in registry})
        for model, entry in zip(registry, again.versions, strict=True):
            self.assertEqual((entry.name, entry.version), (model.name, model.version))
            self.assertEqual(entry.applied_to(ModelSettings()), model.settings)

    def test_workflows(self) -> None:
        """Nodes of workflows are left out, as are workflows."""
        registry = Registry().register(version()).register(evolve(version(number="2.0"), workflow="w"))
        [entry] = take(registry, {("m", "1.0"): (1, 1), ("m", "2.0"): (1, 1)}).versions
        self.assertEqual(entry.version, "1.0")

    def test_members(self) -> None:
        """The members are TorchServe's, in its order."""
        registry = Registry().register(version())
        text = render(take(registry, {("m", "1.0"): (2, 3)}), "x.cfg", MOMENT)
        whole = json.loads(text)
        self.assertEqual(
            {**whole, "models": 0}, {"name": "x.cfg", "modelCount": 1, "created": 1767323045678, "models": 0}
        )
        self.assertEqual(
            list(whole["models"]["m"]["1.0"].items()),
            [
                ("defaultVersion", True),
                ("marName", "m.mar"),
                ("minWorkers", 2),
                ("maxWorkers", 3),
                ("batchSize", 1),
                ("maxBatchDelay", 100),
                ("responseTimeout", 120),
                ("startupTimeout", 120),
                ("runtimeType", "python"),
            ],
        )

    def test_theirs(self) -> None:
        """A snapshot of TorchServe is read."""
        [only] = read(json.loads(THEIRS)).versions
        self.assertEqual((only.name, only.version, only.mar_name, only.default), ("mnist", "1.0", "mnist.mar", True))
        settings = only.applied_to(ModelSettings(startup_timeout=7))
        self.assertEqual((settings.min_workers, settings.max_workers, settings.max_batch_delay), (1, 5, 5000))
        self.assertEqual(settings.startup_timeout, 7)

    def test_empty(self) -> None:
        """A snapshot of nothing is one, also where models are left over."""
        self.assertEqual(read(json.loads(render(Snapshot(), "x", MOMENT))), Snapshot())
        self.assertEqual(read({"modelCount": 0, "models": {"m": {}}}), Snapshot())

    def test_one_default(self) -> None:
        """Of a model's versions exactly one is the default, whatever the file says."""
        for said, default in (((False, False), "1"), ((True, True), "2"), ((False, True), "2")):
            versions = {
                number: {"marName": "m.mar", "defaultVersion": is_default}
                for number, is_default in zip("12", said, strict=True)
            }
            self.assertEqual(read({"models": {"m": versions}}).defaults(), {"m": default})


class OriginTests(SynchronousTestCase):
    """Tests for the origin of a restored version."""

    def test_fetched(self) -> None:
        """What was fetched is found in the store, and keeps its origin."""
        entry = recorded(version("https://h/a/x.mar", location="x.mar"))
        self.assertEqual((entry.mar_name, entry.url), ("x.mar", "https://h/a/x.mar"))

    def test_copied(self) -> None:
        """So is an archive of this machine."""
        entry = recorded(version("file:///a/x.mar", directory="/tmp/serving/x", location="x.mar"))
        self.assertEqual((entry.mar_name, entry.url), ("x.mar", "file:///a/x.mar"))

    def test_in_place(self) -> None:
        """What was served in place outside the store is looked for there."""
        entry = recorded(version("file:///a/m", directory="/a/m", location="file:///a/m"))
        self.assertEqual((entry.mar_name, entry.url), ("file:///a/m", None))
        entry = recorded(version("../m", directory="/a/m", location="/a/m"))
        self.assertEqual((entry.mar_name, entry.url), ("/a/m", "../m"))

    def test_secrets(self) -> None:
        """The password and the signature of a URL are not saved."""
        entry = recorded(version("https://user:S3cret@h:8/a/x.mar?X-Amz-Signature=abc#frag", location="x.mar"))
        self.assertEqual((entry.mar_name, entry.url), ("x.mar", "https://h:8/a/x.mar"))

    def test_handler(self) -> None:
        """The handler that a registration asked for is kept, the archive's own is the archive's business."""
        self.assertIsNone(recorded(version()).handler)
        self.assertEqual(recorded(version(handler="other:go")).handler, "other:go")


class RefusalTests(SynchronousTestCase):
    """A snapshot that cannot be restored is refused with the place and the reason."""

    def test_members(self) -> None:
        """A member which is wrong is named, with its version."""
        where = "model_snapshot, version 1.0 of model m: "
        for members, problem in (
            ({"marName": ""}, "marName is missing"),
            ({"marName": 3}, "marName is 3, expected text"),
            ({"minWorkers": "many"}, "models has 'many' for minWorkers, expected an integer"),
            ({"minWorkers": 10**9}, f"maxWorkers is {10**9}, expected at most 1024"),
            ({"handler": ["x"]}, "handler is ['x'], expected text"),
        ):
            self.assertEqual(refusal(**members), where + problem)

    def test_shape(self) -> None:
        """A value that should be an object, and an invalid model name, are refused."""
        shapes: list[Any] = [[], {"m": 3}, {"m": {}}, {"m": {"1.0": 3}}, {"../m": {"1.0": {"marName": "m.mar"}}}]
        for models in shapes:
            self.assertRaises(InvalidSnapshot, read, {"models": models})

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["models", "modelCount", "m", "1.0", "marName", "minWorkers", "maxWorkers"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=12,
        ).filter(lambda value: isinstance(value, dict))
    )
    def test_anything(self, value: dict[str, Any]) -> None:
        """Any object is either read or refused with an error."""
        try:
            snapshot = read(value)
        except InvalidSnapshot:
            return
        for entry in snapshot.versions:
            entry.applied_to(ModelSettings())
