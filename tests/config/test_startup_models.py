# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.startup_models`.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import builds, from_regex, lists, none, one_of, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.startup_models import ALL_MODELS, StartupModel, parse_load_models

models = builds(
    StartupModel,
    one_of(none(), from_regex(r"[A-Za-z0-9_.-]([A-Za-z0-9é_. -]{0,7}[A-Za-z0-9_.-])?", fullmatch=True)),
    from_regex(r"(https?://[a-z]{1,9}/)?[b-z]{1,9}\.mar", fullmatch=True),
)


class ParseLoadModelsTests(SynchronousTestCase):
    """Reading ``load_models``."""

    def test_nothing(self) -> None:
        """No models: nothing, blanks, or "standalone"."""
        for word in (None, "", "  ", ",", "standalone", " Standalone "):
            self.assertEqual(parse_load_models(word), ())

    def test_all(self) -> None:
        """All models of the store."""
        for word in ("all", "ALL", " all "):
            self.assertEqual(parse_load_models(word), (ALL_MODELS,))

    def test_blanks(self) -> None:
        """Blanks do not count, and items without a location are passed over."""
        self.assertEqual(
            parse_load_models(" a.mar , b = c.mar,, d= "), (StartupModel(None, "a.mar"), StartupModel("b", "c.mar"))
        )

    def test_names(self) -> None:
        """A name may have blanks, and letters of any script."""
        self.assertEqual(parse_load_models("mon modèle=m.mar"), (StartupModel("mon modèle", "m.mar"),))

    def test_urls(self) -> None:
        """An "=" in a URL separates nothing."""
        url = "https://host/x.mar?versionId=3"
        self.assertEqual(parse_load_models(url), (StartupModel(None, url),))
        self.assertEqual(parse_load_models(f"m={url}"), (StartupModel("m", url),))
        self.assertEqual(parse_load_models("=x.mar"), (StartupModel(None, "=x.mar"),))

    @given(lists(models, min_size=1))
    def test_round_trip(self, wanted: list[StartupModel]) -> None:
        """Any list of models is read back from its text."""
        items = [model.url if model.name is None else f"{model.name}={model.url}" for model in wanted]
        self.assertEqual(parse_load_models(", ".join(items)), tuple(wanted))

    @given(text())
    def test_any_text(self, word: str) -> None:
        """Every text is read, and no name or location is empty or has blanks around it."""
        for model in parse_load_models(word):
            self.assertEqual(model.url, model.url.strip())
            self.assertNotEqual(model.name, "")
