# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.load`.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis.strategies import builds, dictionaries, lists, sampled_from, text

from tests.config.load_case import PAIRED, LoadCase, other_value
from twisted_serve.config.load import Setting, merge
from twisted_serve.config.options import KEYS, ServerOptions, environment_names

layers = dictionaries(sampled_from(sorted(KEYS)), builds(Setting, text(max_size=3), text(max_size=3)))


class PrecedenceTests(LoadCase):
    """Environment over command line over file over default."""

    @given(lists(layers), layers)
    def test_fold(self, higher: list[dict[str, Setting]], lowest: dict[str, Setting]) -> None:
        """Adding a lower layer changes nothing that was set."""
        before = merge(higher)
        after = merge([lowest, *higher])
        self.assertEqual({**after, **before}, after)
        self.assertEqual(after.keys(), before.keys() | lowest.keys())

    @given(layers, layers, layers)
    def test_grouping(self, a: dict[str, Setting], b: dict[str, Setting], c: dict[str, Setting]) -> None:
        """It does not matter which layers are put together first."""
        self.assertEqual(merge([merge([a, b]), c]), merge([a, merge([b, c])]))

    def test_default(self) -> None:
        """Without file, flags and variables everything is at its default."""
        loaded = self.load()
        expected = ServerOptions(model_store=self.cwd / "model_store", token_key_file=self.cwd / "key_file.json")
        logs = self.cwd / "logs"
        expected = evolve(expected, log_location=logs, metrics_location=logs)
        self.assertEqual(loaded.options, expected)
        self.assertEqual(loaded.sources, {"model_store": "command line option --model-store"})
        self.assertEqual(loaded.warnings, ())

    def test_every_key_from_the_file(self) -> None:
        """Every setting can be made in the file."""
        for key in sorted(KEYS - set(PAIRED)):
            self.write("model_store=model_store", f"{key}={other_value(key)}")
            loaded = self.load(store=False)
            self.assertNotEqual(getattr(loaded.options, key), getattr(ServerOptions(), key), key)
            self.assertEqual(loaded.sources[key], str(self.cwd / "config.properties"))
            self.assertEqual(loaded.warnings, ())

    def test_every_variable(self) -> None:
        """Every setting can be made by each of the variables which it documents, over the file."""
        for key in sorted(KEYS - set(PAIRED)):
            for name in environment_names(key):
                self.write(
                    "enable_envvars_config=true", "use_env_allowed_urls=true", "model_store=model_store", f"{key}=other"
                )
                loaded = self.load(**dict[str, Any]({name: other_value(key)}), store=False)
                self.assertNotEqual(getattr(loaded.options, key), getattr(ServerOptions(), key), key)
                self.assertEqual(loaded.sources[key], f"environment variable {name}")

    def test_variable_over_flag(self) -> None:
        """A variable counts more than the flag."""
        self.write("enable_envvars_config=True")
        loaded = self.load("--models", "a.mar", TS_LOAD_MODELS="b.mar", TS_MODEL_STORE="other")
        self.assertEqual((loaded.options.load_models, loaded.options.model_store), ("b.mar", self.cwd / "other"))

    def test_flag_over_file(self) -> None:
        """A flag counts more than the file."""
        self.write("load_models=b.mar", "model_store=other")
        loaded = self.load("--models", "a.mar", "x=c.mar")
        self.assertEqual(loaded.options.load_models, "a.mar,x=c.mar")
        self.assertEqual(loaded.options.model_store, self.cwd / "model_store")
        self.assertEqual(loaded.sources["load_models"], "command line option --models")

    def test_variables_need_the_file(self) -> None:
        """A variable counts only when the file says so; when it does not, a warning tells why nothing happens."""
        for line in ("", "enable_envvars_config=false", "enable_envvars_config=1"):
            self.write(line)
            loaded = self.load(TS_DISABLE_TOKEN_AUTHORIZATION="true")
            self.assertFalse(loaded.options.disable_token_authorization)
            self.assertIn("TS_DISABLE_TOKEN_AUTHORIZATION is ignored", loaded.warnings[-1])
            self.assertIn("enable_envvars_config=true", loaded.warnings[-1])

    def test_switch_is_the_files(self) -> None:
        """A variable cannot switch variables on."""
        loaded = self.load(TS_ENABLE_ENVVARS_CONFIG="true", TS_ENABLE_MODEL_API="true")
        self.assertFalse(loaded.options.enable_model_api)

    def test_allowed_urls(self) -> None:
        """The list of URLs needs a second switch to be taken from a variable."""
        self.write("enable_envvars_config=true", "allowed_urls=https://a/.*")
        loaded = self.load(TS_ALLOWED_URLS=".*")
        self.assertEqual(loaded.options.allowed_urls, ("https://a/.*",))
        self.assertIn("use_env_allowed_urls=true", loaded.warnings[0])
        self.write("enable_envvars_config=true", "use_env_allowed_urls=TRUE", "allowed_urls=https://a/.*")
        self.assertEqual(self.load(TS_ALLOWED_URLS=".*").options.allowed_urls, (".*",))

    def test_token_lifetime(self) -> None:
        """The lifetime has the predecessor's variable and the documented one; the predecessor's counts first."""
        self.write("enable_envvars_config=true")
        self.assertEqual(self.load(TS_TOKEN_EXPIRATION_MIN="5").options.token_expiration_min, 5)
        loaded = self.load(TS_TOKEN_EXPIRATION_MIN="5", TS_TOKEN_EXPIRATION_TIME_MIN="6")
        self.assertEqual(loaded.options.token_expiration_min, 6)


class TokenSwitchTests(LoadCase):
    """Switching tokens off and on, as ``seed/token_authorization_api.txt`` has it."""

    def disabled(self, *words: str, **environ: Any) -> bool:
        """Say whether tokens are off."""
        return self.load(*words, **environ).options.disable_token_authorization

    def test_example_1(self) -> None:
        """The flag disables what the file enables."""
        self.write("disable_token_authorization=false")
        self.assertTrue(self.disabled("--start", "--ncs", "--disable-token-auth"))

    def test_example_2(self) -> None:
        """The file disables; without the flag it stays so."""
        self.write("disable_token_authorization=true")
        self.assertTrue(self.disabled("--start", "--ncs"))

    def test_variable_enables_again(self) -> None:
        """A variable enables what flag and file have disabled."""
        self.write("enable_envvars_config=true", "disable_token_authorization=true")
        self.assertFalse(self.disabled("--dt", TS_DISABLE_TOKEN_AUTHORIZATION="false"))

    def test_variable_disables(self) -> None:
        """A variable disables what the file has enabled."""
        self.write("enable_envvars_config=true", "disable_token_authorization=false")
        self.assertTrue(self.disabled(TS_DISABLE_TOKEN_AUTHORIZATION="TRUE"))

    def test_only_true(self) -> None:
        """Only "true" disables; what looks like it is told of."""
        self.write("disable_token_authorization=yes")
        loaded = self.load()
        self.assertFalse(loaded.options.disable_token_authorization)
        self.assertIn("disable_token_authorization is 'yes' in", loaded.warnings[0])

    def test_model_api(self) -> None:
        """The flag enables the model API, whatever the file says."""
        self.write("enable_model_api=false")
        self.assertTrue(self.load("--enable-model-api").options.enable_model_api)
