# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.models.registry`."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import (
    BadRequest,
    Conflict,
    InvalidModelVersion,
    ModelNotFound,
    ModelVersionNotFound,
    ServeError,
)
from twisted_serve.models.registry import Page, Registry, fallback_name, valid_model_name, valid_model_version
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.testing.strategies.models import model_names, model_versions, registries

NAMES = st.sampled_from(["a", "b"])
VERSIONS = st.sampled_from(["1.0", "1.1", "2.0"])


def version(name: str = "m", number: str = "1.0") -> ModelVersion:
    return ModelVersion(name, number, f"{name}.mar", Path("/m"), Manifest(), ModelConfig(), "h.py", ModelSettings())


class RegistryTests(SynchronousTestCase):
    """Tests for `Registry`."""

    def setUp(self) -> None:
        self.first, self.second = version(), version(number="2.0")
        self.registry = Registry().register(self.first).register(self.second)

    def test_resolve(self) -> None:
        """A version is found by its number, the default one without."""
        self.assertIs(self.registry.resolve("m"), self.first)
        self.assertIs(self.registry.resolve("m", "2.0"), self.second)
        self.assertEqual(self.registry.versions("m"), (self.first, self.second))
        self.assertEqual(self.registry.default_version("m"), "1.0")
        self.assertEqual(list(self.registry), [self.first, self.second])

    def test_unknown(self) -> None:
        """An unknown model or version is reported with TorchServe's text."""
        for call in (
            self.registry.resolve,
            self.registry.versions,
            self.registry.default_version,
            self.registry.unregister,
        ):
            self.assertEqual(self.assertRaises(ModelNotFound, call, "x").message, "Model not found: x")
        for find in (self.registry.resolve, self.registry.unregister):
            error = self.assertRaises(ModelVersionNotFound, find, "m", "3")
            self.assertEqual(error.message, "Model version: 3 does not exist for model: m")
        self.assertRaises(ModelVersionNotFound, self.registry.resolve, "m", "")

    def test_conflict(self) -> None:
        """A version can be registered once."""
        error = self.assertRaises(Conflict, self.registry.register, version())
        self.assertEqual(error.message, "Model version 1.0 is already registered for model m")

    def test_set_default(self) -> None:
        """Another version can be made the default; texts for unknown ones have no colons."""
        self.assertIs(self.registry.set_default("m", "2.0").resolve("m"), self.second)
        self.assertIs(self.registry.resolve("m"), self.first)
        error = self.assertRaises(ModelVersionNotFound, self.registry.set_default, "m", "3")
        self.assertEqual(error.message, "Model version 3 does not exist for model m")
        self.assertEqual(
            self.assertRaises(ModelNotFound, self.registry.set_default, "x", "3").message, "Model not found: x"
        )

    def test_unregister(self) -> None:
        """The default version goes last; with it goes the model."""
        error = self.assertRaises(InvalidModelVersion, self.registry.unregister, "m")
        self.assertEqual(error.message, "Cannot remove default version for model m")
        registry, gone = self.registry.unregister("m", "2.0")
        self.assertIs(gone, self.second)
        registry, gone = registry.unregister("m")
        self.assertIs(gone, self.first)
        self.assertEqual(registry, Registry())

    def test_pages(self) -> None:
        """Names are sorted and paged; the last page has no token."""
        registry = Registry()
        for name in ("c", "a", "B", "d"):
            registry = registry.register(version(name))
        self.assertEqual(registry.names(), Page(("B", "a", "c", "d"), None))
        self.assertEqual(registry.names(2), Page(("B", "a"), 2))
        self.assertEqual(registry.names(2, 2), Page(("c", "d"), None))
        self.assertEqual(registry.names(3, -5), Page(("B", "a", "c"), 3))
        self.assertEqual(registry.names(2, 10**30), Page((), None))
        for limit in (0, -1, 101):
            self.assertEqual(registry.names(limit), registry.names(100))

    @given(registries(), st.integers(1, 5))
    def test_pages_are_all(self, registry: Registry, limit: int) -> None:
        """Going from page to page comes to an end and shows every name once."""
        seen: list[str] = []
        token: int | None = 0
        while token is not None:
            page = registry.names(limit, token)
            seen += page.names
            token = page.next_page_token
        self.assertEqual(seen, sorted({v.name for v in registry}))

    @given(registries(), model_versions())
    def test_register_and_unregister(self, registry: Registry, new: ModelVersion) -> None:
        """Registering and unregistering again changes nothing, and so does the reverse."""
        try:
            more = registry.register(new)
        except Conflict:
            self.assertEqual(registry.resolve(new.name, new.version).version, new.version)
        else:
            self.assertEqual(more.unregister(new.name, new.version), (registry, new))
        for old in registry:
            if registry.default_version(old.name) == old.version and len(registry.versions(old.name)) > 1:
                self.assertRaises(InvalidModelVersion, registry.unregister, old.name, old.version)
            else:
                less, gone = registry.unregister(old.name, old.version)
                self.assertEqual(less.register(gone), registry)


class RegistryMachine(RuleBasedStateMachine):
    """Every sequence of registrations, compared with a list of the registered versions."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.there: dict[str, list[str]] = {}
        self.defaults: dict[str, str] = {}

    @rule(name=NAMES, number=VERSIONS)
    def register(self, name: str, number: str) -> None:
        try:
            self.registry = self.registry.register(version(name, number))
        except Conflict:
            assert number in self.there[name]
        else:
            self.there.setdefault(name, []).append(number)
            self.defaults.setdefault(name, number)

    @rule(name=NAMES, number=VERSIONS | st.none())
    def unregister(self, name: str, number: str | None) -> None:
        before = self.registry
        known = self.there.get(name, [])
        wanted = number or self.defaults.get(name)
        refusal: type[ServeError]
        try:
            self.registry, gone = before.unregister(name, number)
        except ServeError as e:
            refusal = type(e)
        else:
            assert gone.version == wanted
            known.remove(gone.version)
            if not known:
                del self.there[name], self.defaults[name]
            return
        assert self.registry is before
        if not known:
            assert refusal is ModelNotFound
        elif wanted not in known:
            assert refusal is ModelVersionNotFound
        else:
            assert refusal is InvalidModelVersion
            assert wanted == self.defaults[name]
            assert len(known) > 1

    @rule(name=NAMES, number=VERSIONS)
    def set_default(self, name: str, number: str) -> None:
        try:
            self.registry = self.registry.set_default(name, number)
        except (ModelNotFound, ModelVersionNotFound):
            assert number not in self.there.get(name, [])
        else:
            self.defaults[name] = number

    @invariant()
    def exactly_one_default(self) -> None:
        assert {name: self.registry.default_version(name) for name in self.there} == self.defaults
        for name, number in self.defaults.items():
            assert self.registry.resolve(name).version == number

    @invariant()
    def knows_what_is_there(self) -> None:
        assert self.registry.names().names == tuple(sorted(self.there))
        for name, numbers in self.there.items():
            assert sorted(v.version for v in self.registry.versions(name)) == sorted(numbers)


TestRegistryMachine = RegistryMachine.TestCase


class NamesTests(SynchronousTestCase):
    """Tests for the names of models."""

    def test_invalid(self) -> None:
        """An invalid name is refused; the error contains the name and the reason."""
        for name, flaw in (
            ("", "it has 0 characters, expected 1 to 255"),
            ("x" * 256, "it has 256 characters"),
            (".", "a direction in a path"),
            ("..", "a direction in a path"),
            ("a/b", "it contains '/'"),
            ("../a", "it contains '/'"),
            ("a\\b", "it contains '\\\\'"),
            ("a?", "it contains '?'"),
            ("a#b", "it contains '#'"),
            ("a%2fb", "it contains '%'"),
            ("m:predict", "it contains ':'"),
            (" a", "a blank"),
            ("a ", "a blank"),
            ("a\n", "it contains U+000A, which is not printable"),
            ("a\r\nX: y", "U+000D"),
            ("a\0", "U+0000"),
            ("a\x7f", "U+007F"),
            ("a\x85", "U+0085"),
            ("a\xa0b", "U+00A0"),
            ("a\xadb", "U+00AD"),
            ("a\u200bb", "U+200B"),
            ("a\u202eb", "U+202E"),
            ("a\u2028b", "U+2028"),
            ("a\u2066b", "U+2066"),
            ("a\u3000b", "U+3000"),
            ("\ufeffa", "U+FEFF"),
            ("a\ue000", "U+E000"),
            ("a\ud800", "U+D800"),
            ("a\uffff", "U+FFFF"),
            ("mode\u0300le", "normal form C"),
            ("\u212bngstrom", "normal form C"),
        ):
            with self.subTest(name):
                message = self.assertRaises(BadRequest, valid_model_name, name).message
                self.assertIn(f"Model name {name!r:.300} is not valid: ", message)
                self.assertIn(flaw, message)
                message.encode()

    @given(model_names())
    def test_valid(self, name: str) -> None:
        """A name that can be is left as it is."""
        self.assertEqual(valid_model_name(name), name)

    def test_examples(self) -> None:
        """Blanks, letters of any script and most punctuation are no hindrance."""
        for name in ("modèle", "mon modèle (v2)", "モデル", "Модель", "_a", "-a", ".a", "a+b", "a@b", "a,b", "naïve=1"):
            self.assertEqual(valid_model_name(name), name)

    def test_versions(self) -> None:
        """A version is any short text that can be printed and can stand in a path, where nothing else stands."""
        for number in ("1.0", "v1-beta", "2024.01.02+abc", "2024-01 beta", "ü", "1:2", "latest", "All"):
            self.assertEqual(valid_model_version(number), number)
        for number in (
            *(
                "",
                "1\n",
                "x" * 256,
                "\ud800",
                "1/2",
                "1\\2",
                "1?",
                "1#",
                "1%2f2",
                "1\t",
                "1\u202e",
                " 1",
                "1 ",
                ".",
                "..",
            ),
            *("all", "set-default", "invoke", "predict", "e\u0301"),
        ):
            message = self.assertRaises(BadRequest, valid_model_version, number).message
            self.assertIn(f"Model version {number!r:.300} is not valid: ", message)

    def test_fallback(self) -> None:
        """A start-up model without a name is called as its file, without what a name cannot have."""
        for url, name in (
            ("squeeze-net.mar", "squeeze_net"),
            ("http://h/a/my.model.v1.mar", "my_model_v1"),
            ("x.model", "x"),
            ("x.tar.gz", "x_tar_gz"),
            ("dir/inner/", "inner"),
            ("/opt/ml/model", "model"),
            (".mar", "_mar"),
            ("größe.mar", "gr__e"),
            ("", "_"),
        ):
            self.assertEqual(fallback_name(url), name)
