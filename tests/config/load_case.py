# SPDX-License-Identifier: Apache-2.0
"""What the tests of loading settings share."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.arguments import parse_command_line, parser
from twisted_serve.config.load import LoadedOptions, load_options
from twisted_serve.config.options import ServerOptions

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
    "enable_grpc": "true",
    "grpc_inference_address": "127.0.0.2",
    "grpc_inference_port": "9070",
    "grpc_inference_max_connection_age_ms": "60000",
    "grpc_inference_max_connection_age_grace_ms": "1000",
    "grpc_management_address": "unix:/tmp/management.sock",
    "grpc_management_port": "9071",
    "grpc_management_max_connection_age_ms": "60000",
    "grpc_management_max_connection_age_grace_ms": "1000",
    "plugins": "ready",
    "plugins_path": "other",
    "prediction_error_detail": "true",
    "private_key_file": "",
    "temp_directory": "other",
    "model_store": "other",
    "token_on_restart": "keep",
    "token_refusal_status": "401",
}

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
