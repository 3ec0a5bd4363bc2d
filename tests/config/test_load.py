# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.load`.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis.strategies import builds, dictionaries, lists, sampled_from, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.arguments import CommandLine, parse_command_line, parser
from twisted_serve.config.load import FILE_ONLY, LaunchError, LoadedOptions, Setting, find_file, load_options, merge
from twisted_serve.config.options import KEYS, ServerOptions, environment_names
from twisted_serve.config.values import ConfigError
from twisted_serve.config.without_effect import ACCEPTED_WITHOUT_EFFECT

layers = dictionaries(sampled_from(sorted(KEYS)), builds(Setting, text(max_size=3), text(max_size=3)))

# A value of each setting which is not its default.
OTHER_VALUES = {
    "allowed_urls": "file:///x",
    "blacklist_env_vars": "AWS.*",
    "certificate_file": "",
    "client_ca_file": "",
    "client_certificate": "none",
    "default_workers_per_model": "2",
    "inference_address": "http://127.0.0.1:9080",
    "management_address": "http://127.0.0.1:9081",
    "metrics_address": "http://127.0.0.1:9082",
    "max_header_size": "20000",
    "log_format": "json",
    "log_level": "warn",
    "log_levels": "ACCESS_LOG=off, a.b = WARN",
    "metrics_mode": "prometheus",
    "default_batch_policy": "window",
    "worker_start": "spawn",
    "models": '{"m": {"1.0": {"batchSize": 4}}}',
    "model_snapshot": "{}",
    "number_of_gpu": "3",
    "plugins": "ready",
    "plugins_path": "other",
    "private_key_file": "",
    "temp_directory": "other",
    "model_store": "other",
    "token_refusal_status": "401",
}
# All that the predecessor reads (``spec/config_cli.md`` §3), and what it writes into its snapshots.
THEIRS = """
    inference_address management_address metrics_address grpc_inference_address grpc_management_address
    grpc_inference_port grpc_management_port grpc_inference_max_connection_age_ms grpc_management_max_connection_age_ms
    grpc_inference_max_connection_age_grace_ms grpc_management_max_connection_age_grace_ms enable_grpc_ssl
    initial_worker_port initial_distribution_port ts_open_inference_protocol

    model_store workflow_store load_models models model_snapshot default_workers_per_model job_queue_size
    default_response_timeout default_startup_timeout unregister_model_timeout number_of_gpu default_service_handler
    service_envelope install_py_dep_per_model enable_model_api disable_token_authorization token_expiration_min
    allowed_urls use_env_allowed_urls ts_header_key_sequence_id ts_header_key_sequence_start
    ts_header_key_sequence_end

    max_request_size max_response_size limit_max_image_pixels decode_input_request cors_allowed_origin
    cors_allowed_methods cors_allowed_headers keystore keystore_pass keystore_type certificate_file private_key_file

    metrics_config metrics_mode model_metrics_auto_detect enable_metrics_api disable_system_metrics system_metrics_cmd
    metric_time_interval async_logging

    number_of_netty_threads netty_client_threads prefer_direct_buffer use_native_io io_ratio vmargs plugins_path
    blacklist_env_vars debug model_server_home enable_envvars_config ipex_enable ipex_gpu_enable cpu_launcher_enable
    cpu_launcher_args cpp_log_config version python tsConfigFile
"""

# Alone, one of these is refused.
PAIRED = ("certificate_file", "private_key_file", "client_ca_file", "client_certificate")


def other_value(key: str) -> str:
    """Make the text of a value of ``key`` that is not its default."""
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    default = getattr(ServerOptions(), key)
    if isinstance(default, bool):
        return str(not default)
    return str(default + 1) if isinstance(default, int | float) else "other"


class LoadCase(SynchronousTestCase):
    """A directory with a model store, to which files can be added."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cwd = Path(directory.name)
        for name in ("model_store", "other"):
            (self.cwd / name).mkdir(parents=True)

    def write(self, *lines: str, name: str = "config.properties") -> None:
        """Write a configuration file."""
        (self.cwd / name).write_text("\n".join(lines), encoding="utf-8")

    def load(self, *words: str, store: bool = True, **environ: str) -> LoadedOptions:
        """Load as the command does that was called with ``words``."""
        if store:
            words = ("--model-store", "model_store", *words)
        return load_options(parse_command_line(words, parser()), environ, self.cwd)

    def assert_refused(
        self, kind: type[Exception], message: str, *words: str, store: bool = True, **environ: str
    ) -> None:
        """Assert that loading fails with ``message``."""
        error = self.assertRaises(kind, self.load, *words, store=store, **environ)
        self.assertEqual(str(error), message)


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


class FileTests(LoadCase):
    """Which file is read, and what if it cannot be."""

    def test_order(self) -> None:
        """The variable's file counts, else the flag's, else the one in the working directory."""
        for number, name in enumerate(("config.properties", "flag", "variable")):
            self.write(f"job_queue_size={number + 1}", name=name)
        self.assertEqual(self.load().options.job_queue_size, 1)
        self.assertEqual(self.load("--ts-config", "flag").options.job_queue_size, 2)
        self.assertEqual(self.load("--ts-config", "flag", TS_CONFIG_FILE="variable").options.job_queue_size, 3)
        self.assertEqual(self.load("--ts-config", "flag", TS_CONFIG_FILE="").options.job_queue_size, 2)

    def test_none(self) -> None:
        """There need not be a file."""
        self.assertIsNone(find_file(CommandLine(), {}, self.cwd))

    def test_missing(self) -> None:
        """A file that was named has to be there."""
        self.assert_refused(LaunchError, "--ts-config file not found: no.properties", "--ts-config", "no.properties")
        self.assert_refused(LaunchError, "--ts-config file not found: no", TS_CONFIG_FILE="no")
        self.assert_refused(LaunchError, "--ts-config file not found: other", "--ts-config", "other")

    def test_unreadable(self) -> None:
        """A file which cannot be read is named."""
        if os.geteuid() == 0:
            (self.cwd / "loop").symlink_to("/proc/self/mem")
            error = self.assertRaises(ConfigError, self.load, "--ts-config", "loop")
        else:
            self.write(name="loop")
            (self.cwd / "loop").chmod(0)
            error = self.assertRaises(ConfigError, self.load, "--ts-config", "loop")
        self.assertIn("cannot be read: ", str(error))
        self.assertIn(str(self.cwd / "loop"), str(error))

    def test_variables_in_values(self) -> None:
        """Variables are put into the file's values, whether or not variables count otherwise."""
        self.write("model_store=$$STORE$$")
        self.assertEqual(self.load(store=False, STORE="other").options.model_store, self.cwd / "other")
        self.assert_refused(
            ConfigError,
            f"Invalid Environment Variable STORE (model_store in {self.cwd / 'config.properties'})",
            store=False,
        )

    def test_wrong_value(self) -> None:
        """A value which is not allowed is named, with its setting and where it was said."""
        path = self.cwd / "config.properties"
        self.write("job_queue_size=many")
        self.assert_refused(ConfigError, f"job_queue_size must be a whole number, not 'many' ({path})")
        self.write("management_address=8081")
        self.assert_refused(ConfigError, f"Invalid binding address: 8081 (management_address in {path})")
        self.write("enable_envvars_config=true")
        self.assert_refused(
            ConfigError,
            "token_expiration_min must be more than 0 and at most 4000000000, not 0.0 "
            "(environment variable TS_TOKEN_EXPIRATION_MIN)",
            TS_TOKEN_EXPIRATION_MIN="0",
        )


class DirectoryTests(LoadCase):
    """Files and directories which have to be there."""

    def test_model_store(self) -> None:
        """There has to be a model store, named by a flag, a file or a variable."""
        self.assert_refused(LaunchError, "Missing mandatory parameter --model-store", store=False)
        self.assert_refused(
            LaunchError, "--model-store directory not found: nowhere", "--model-store", "nowhere", store=False
        )
        self.write("model_store=nowhere")
        self.assert_refused(LaunchError, "--model-store directory not found: nowhere", store=False)
        self.write("model_store=other")
        self.assertEqual(self.load(store=False).options.model_store, self.cwd / "other")

    def test_other_paths(self) -> None:
        """What else was named has to be there, even where it has no effect."""
        self.assert_refused(LaunchError, f"--log-config file not found: {self.cwd / 'no'}", "--log-config", "no")
        self.assert_refused(
            LaunchError, f"--cpp-log-config file not found: {self.cwd / 'no'}", "--cpp-log-config", "no"
        )
        self.assert_refused(LaunchError, "--workflow-store directory not found: no", "--workflow-store", "no")
        self.write("workflow_store=other")
        self.assertEqual(self.load().options.workflow_store, self.cwd / "other")
        self.assert_refused(LaunchError, "--workflow-store directory not found: no", "--workflow-store", "no")

    def test_temp(self) -> None:
        """The temporary directory may be named by TEMP, and has to exist."""
        self.assertEqual(self.load(TEMP=str(self.cwd / "other")).options.temp_directory, self.cwd / "other")
        self.assert_refused(
            LaunchError,
            "Invalid temp directory: /nowhere/at/all, please check TEMP environment variable.",
            TEMP="/nowhere/at/all",
        )

    def test_open_inference_protocol(self) -> None:
        """Its variable counts without being told to, and alone; the file has its own word for yes, too."""
        for in_file, variable, on in (
            ("", None, False),
            ("true", None, True),
            ("oip", None, True),
            ("false", "oip", True),
            ("", "true", True),
            ("true", "off", False),
            ("true", "kserve", False),
            ("true", "", True),
            ("false", "", False),
        ):
            self.write(f"ts_open_inference_protocol={in_file}" if in_file else "")
            environ: dict[str, Any] = {} if variable is None else {"TS_OPEN_INFERENCE_PROTOCOL": variable}
            loaded = self.load(**environ)
            self.assertIs(loaded.options.ts_open_inference_protocol, on, (in_file, variable))
            odd = variable in ("off", "kserve")
            self.assertEqual(len(loaded.warnings), int(odd), (in_file, variable, loaded.warnings))

    def test_absolute(self) -> None:
        """Paths are relative to the working directory at the start, also if that changes later."""
        self.write("token_key_file=keys/k.json", "keystore=/k.p12")
        options = self.load().options
        self.assertEqual((options.token_key_file, options.keystore), (self.cwd / "keys/k.json", Path("/k.p12")))


class WarningTests(LoadCase):
    """What is said and has no effect."""

    def warnings(self, *words: str, **environ: str) -> tuple[str, ...]:
        """Load, and return the warnings."""
        return self.load(*words, store=True, **environ).warnings

    def test_unknown(self) -> None:
        """An unknown setting is told of, with the one that may have been meant; its value is not shown."""
        self.write("disable_token_authorisation=s3cret", "NUM_WORKERS=1")
        path = self.cwd / "config.properties"
        self.assertEqual(
            self.warnings(),
            (
                f"'NUM_WORKERS' in {path} is no setting",
                f"'disable_token_authorisation' in {path} is no setting; did you mean disable_token_authorization?",
            ),
        )

    def test_without_effect(self) -> None:
        """A setting which does nothing here is told of once, with the reason."""
        self.write(*(f"{key}=x" for key in ACCEPTED_WITHOUT_EFFECT))
        warnings = self.warnings()
        self.assertEqual(len(warnings), len(ACCEPTED_WITHOUT_EFFECT))
        for key, reason in ACCEPTED_WITHOUT_EFFECT.items():
            self.assertIn(f"{key} in {self.cwd / 'config.properties'} has no effect: {reason}", warnings)

    def test_variables_without_effect(self) -> None:
        """So is a variable, where variables count."""
        self.assertEqual(self.warnings(TS_NETTY_CLIENT_THREADS="3"), ())
        self.write("enable_envvars_config=true")
        self.assertEqual(
            self.warnings(TS_NETTY_CLIENT_THREADS="3"),
            ("environment variable TS_NETTY_CLIENT_THREADS has no effect: there is no Java here",),
        )

    def test_members(self) -> None:
        """A member of models which is none is told of, with what was perhaps meant."""
        members = '{"batchsize": 3, "minWorkers": 1, "marName": "m.mar", "defaultVersion": true}'
        self.write(f'models={{"m": {{"1.0": {members}}}}}')
        self.assertEqual(self.warnings(), ("'batchsize' for m 1.0 in models is no setting; did you mean batchSize?",))

    def test_every_setting_of_theirs(self) -> None:
        """Every setting that the predecessor has is one here, or is told of with the reason why it changes nothing."""
        self.assertEqual(set(THEIRS.split()) - KEYS - FILE_ONLY, ACCEPTED_WITHOUT_EFFECT.keys())

    def test_flags(self) -> None:
        """So is a flag."""
        self.write(name="log4j2.xml")
        file = ("--log-config", "log4j2.xml", "--cpp-log-config", "log4j2.xml")
        self.assertEqual(
            [warning.partition(" has no effect")[0] for warning in self.warnings(*file)], ["--cpp-log-config"]
        )

    def test_log_places(self) -> None:
        """The directories of the log come from the predecessor's variables, and the log's file from its flag."""
        self.write(name="log4j2.xml")
        options = self.load("--log-config", "log4j2.xml", LOG_LOCATION="a", METRICS_LOCATION="/b").options
        self.assertEqual((options.log_location, options.metrics_location), (self.cwd / "a", Path("/b")))
        self.assertEqual(options.log_config, self.cwd / "log4j2.xml")

    def test_switches(self) -> None:
        """A switch which is neither on nor off in so many words is told of."""
        self.write("enable_metrics_api=on", "enable_envvars_config=1", "token_exempt_ping=FALSE")
        self.assertEqual(
            [warning.partition(" in ")[0] for warning in self.warnings()],
            ["enable_envvars_config is '1'", "enable_metrics_api is 'on'"],
        )
