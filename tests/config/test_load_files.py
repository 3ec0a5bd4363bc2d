# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.config.load`: files, directories, and what is warned of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.config.load_case import LoadCase
from twisted_serve.archives.model_config import CONFIG_KEYS
from twisted_serve.config.arguments import CommandLine
from twisted_serve.config.load import FILE_ONLY, LaunchError, find_file
from twisted_serve.config.model_keys import IN_MODEL_CONFIG, IN_MODELS
from twisted_serve.config.options import KEYS
from twisted_serve.config.values import ConfigError
from twisted_serve.config.without_effect import ACCEPTED_WITHOUT_EFFECT

# All that the predecessor reads (``docs/torchserve/config_cli.md`` §3), and what it writes into its snapshots.
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

    def test_plugins(self) -> None:
        """A directory of plug-ins that is not there is told of: nothing else depends on it."""
        self.write(name="a.jar")
        for words, place in (("--plugins-path", "no"), "--plugins-path"), (("--ppath", "a.jar"), "--plugins-path"):
            loaded = self.load(*words)
            self.assertIsNone(loaded.options.plugins_path)
            path = self.cwd / words[1]
            self.assertEqual(
                loaded.warnings, (f"plugins_path in command line option {place} has no effect: {path} is no directory",)
            )
        self.write("plugins_path=/nowhere/*.jar")
        self.assertEqual(len(self.load().warnings), 1)
        self.write("plugins_path=other/*")
        loaded = self.load()
        self.assertEqual((loaded.options.plugins_path, loaded.warnings), (self.cwd / "other", ()))

    def test_workflow_store(self) -> None:
        """A store of workflows that only the file names may be missing: the models are served, and the log says so."""
        self.write("workflow_store=/nowhere/flows")
        loaded = self.load()
        self.assertEqual(loaded.options.workflow_store, Path("/nowhere/flows"))
        [warning] = loaded.warnings
        self.assertIn("workflow_store in ", warning)
        self.assertIn("/nowhere/flows is no directory", warning)

    def test_half_of_a_certificate(self) -> None:
        """A certificate without its key, which nothing uses, is told of; with TLS it is refused."""
        path = self.cwd / "config.properties"
        for key in ("certificate_file", "private_key_file"):
            self.write(f"{key}=/nowhere/c.pem")
            [warning] = self.load().warnings
            self.assertIn(f"{key} in {path} has no effect", warning)
            self.write(f"{key}=/nowhere/c.pem", "inference_address=https://127.0.0.1:8443")
            self.assertRaises(ConfigError, self.load)

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

    def test_keys_of_models(self) -> None:
        """A key of a model is told where it belongs, however it is spelt; one of the server is told its spelling."""
        of_model = "belongs to a model: in models= or model-config.yaml"
        for key, hint in (
            ("batch_size", f": batchSize {of_model}"),
            ("batchSize", f": batchSize {of_model}"),
            ("batchsize", f": batchSize {of_model}"),
            ("min_workers", f": minWorkers {of_model}"),
            ("MaxWorkers", f": maxWorkers {of_model}"),
            ("max_batch_delay", f": maxBatchDelay {of_model}"),
            ("response_timeout", f": responseTimeout {of_model}"),
            ("startupTimeout", f": startupTimeout {of_model}"),
            ("initial_workers", f": minWorkers {of_model}"),
            ("device_type", ": deviceType belongs to a model: in model-config.yaml"),
            ("deviceIds", ": deviceIds belongs to a model: in model-config.yaml"),
            ("batchSizes", f": batchSize {of_model}"),
            ("sequence_max_idle_msec", ": sequenceMaxIdleMSec belongs to a model: in model-config.yaml"),
            ("jobQueueSize", "; did you mean job_queue_size?"),
            ("job_que_size", "; did you mean job_queue_size?"),
            ("default_worker_per_model", "; did you mean default_workers_per_model?"),
            ("nonsense", ""),
        ):
            self.write(f"{key}=3")
            self.assertEqual(self.warnings(), (f"'{key}' in {self.cwd / 'config.properties'} is no setting{hint}",))

    def test_members_of_model_config(self) -> None:
        """A member of models that only a model-config.yaml has is told where it belongs."""
        for member, hint in (
            ("jobQueueSize", "jobQueueSize belongs in model-config.yaml"),
            ("device_type", "deviceType belongs in model-config.yaml"),
            ("initial_workers", "did you mean minWorkers?"),
            ("batch_size", "did you mean batchSize?"),
            ("max_worker", "did you mean maxWorkers?"),
        ):
            self.write(f"models={{'m': {{'1.0': {{'{member}': 3}}}}}}")
            self.assertEqual(self.warnings(), (f"'{member}' for m 1.0 in models is no setting; {hint}",))

    def test_all_keys_of_models(self) -> None:
        """The keys of a model-config.yaml are all known as such."""
        self.assertEqual({*CONFIG_KEYS} - {*IN_MODELS, *IN_MODEL_CONFIG}, set())

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
