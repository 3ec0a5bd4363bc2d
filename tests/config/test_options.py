# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.options`.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from attrs import evolve, fields
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis.strategies import floats
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.addresses import Address
from twisted_serve.config.options import (
    KEYS,
    SWITCHES,
    ServerOptions,
    environment_names,
    read_setting,
)
from twisted_serve.config.values import ConfigError
from twisted_serve.config.without_effect import ACCEPTED_WITHOUT_EFFECT


class DefaultTests(SynchronousTestCase):
    """What a server does when nothing is said."""

    def test_safe(self) -> None:
        """By default only this machine is served, only with a key, and only from the model store."""
        options = ServerOptions()
        self.assertEqual(str(options.inference_address), "http://127.0.0.1:8080")
        self.assertEqual(str(options.management_address), "http://127.0.0.1:8081")
        self.assertEqual(str(options.metrics_address), "http://127.0.0.1:8082")
        self.assertFalse(options.disable_token_authorization or options.enable_model_api or options.token_exempt_ping)
        self.assertEqual(options.allowed_urls, ())

    def test_predecessor(self) -> None:
        """Other defaults are the predecessor's."""
        options = ServerOptions()
        self.assertEqual(
            (options.token_expiration_min, options.job_queue_size, options.max_request_size, options.max_response_size),
            (60.0, 100, 6553500, 6553500),
        )
        self.assertEqual(options.token_key_file, Path("key_file.json"))
        self.assertEqual((options.python, options.metrics_mode), (sys.executable, "log"))

    def test_defaults_are_valid(self) -> None:
        """Every default passes its own setting's checks."""
        defaults = ServerOptions()
        self.assertEqual(evolve(defaults), defaults)


class ServerOptionsTests(SynchronousTestCase):
    """Settings which somebody gives in Python."""

    def assert_refused(self, *said: str, **settings: Any) -> None:
        """Assert that an error says all of ``said``."""
        error = self.assertRaises(ConfigError, ServerOptions, **settings)
        for part in said:
            self.assertIn(part, str(error))

    def test_texts_and_values(self) -> None:
        """A setting may be given as its value, or as a file would have it."""
        texts = ServerOptions(
            inference_address="http://127.0.0.1:0",
            management_address="unix:/run/m",
            metrics_address="https://h",
            model_store="ms",
            token_expiration_min="0.5",
            allowed_urls="a,b",
            metrics_mode=" Prometheus ",
        )
        values = ServerOptions(
            inference_address=Address("http", "127.0.0.1", 0),
            management_address=Address("unix", path="/run/m"),
            metrics_address=Address("https", "h", 8445),
            model_store=Path("ms"),
            token_expiration_min=0.5,
            allowed_urls=["a", "b"],
            metrics_mode="prometheus",
        )
        self.assertEqual(texts, evolve(values, temp_directory=texts.temp_directory))

    def test_frozen(self) -> None:
        """Settings do not change while a server runs."""
        self.assertRaises(FrozenInstanceError, setattr, ServerOptions(), "token_exempt_ping", True)

    def test_refusals(self) -> None:
        """A value that is not allowed is refused, naming it and its setting."""
        self.assert_refused("Invalid binding address: 8080", "inference_address", inference_address="8080")
        self.assert_refused("job_queue_size", "0", job_queue_size=0)
        self.assert_refused("max_header_size", "8191", max_header_size="8191")
        self.assert_refused("token_refusal_status", "403", "400, 401", token_refusal_status="403")
        self.assert_refused("metrics_mode", "'statsd'", metrics_mode="statsd")
        self.assert_refused("worker_start", "'thread'", worker_start="thread")
        self.assert_refused("body_timeout", "0", body_timeout=0)
        self.assert_refused("blacklist_env_vars", "'('", blacklist_env_vars="(")
        self.assert_refused("models", "[]", models="[]")
        self.assert_refused("number_of_gpu", "-1", number_of_gpu=-1)
        for name in ("", "a b", "x:", "é", "x\r\ny: z"):
            self.assert_refused("ts_header_key_sequence_id", repr(name), ts_header_key_sequence_id=name)

    def test_expiration(self) -> None:
        """A lifetime is a number of minutes over 0: no key is born expired, and none gets a default by mistake."""
        for minutes in ("0", "-5", "nan", "inf", "1e400", "60min", "", "1e-300", "4000000001"):
            self.assert_refused("token_expiration_min must be", minutes, token_expiration_min=minutes)

    @given(floats(0, 4e9, exclude_min=True, allow_subnormal=False))
    def test_expiration_is_a_date(self, minutes: float) -> None:
        """Every lifetime which is allowed ends later than it begins, and at a date that exists."""
        try:
            options = ServerOptions(token_expiration_min=minutes)
        except ConfigError:
            self.assertLess(minutes * 60, 1e-6)
        else:
            now = datetime(2026, 1, 1, tzinfo=timezone.utc)
            self.assertGreater(now + timedelta(minutes=options.token_expiration_min), now)

    def test_certificate_without_key(self) -> None:
        """A certificate without its key, which the predecessor silently replaced by one of its own, is refused."""
        for key in ("inference_address", "management_address", "metrics_address"):
            https = {key: "https://127.0.0.1:8443"}
            self.assert_refused("certificate_file", "private_key_file", certificate_file="c.pem", **https)
            self.assert_refused("certificate_file", "private_key_file", private_key_file="k.pem", **https)
        ServerOptions(certificate_file="c.pem")
        ServerOptions(private_key_file="k.pem", metrics_address="https://127.0.0.1:8443", enable_metrics_api=False)
        ServerOptions(certificate_file="c.pem", private_key_file="k.pem")
        self.assert_refused("client_certificate", "client_ca_file", client_certificate="required")
        self.assert_refused("client_certificate", "client_ca_file", client_ca_file="ca.pem")
        ServerOptions(client_certificate="optional", client_ca_file="ca.pem")

    def test_shared_port(self) -> None:
        """Listeners may share an address, but not if one would be in clear by mistake."""
        shared = "http://127.0.0.1:8080"
        ServerOptions(inference_address=shared, management_address=shared, metrics_address=shared)
        self.assert_refused(
            "inference_address",
            "management_address",
            "https://localhost:8080",
            management_address="https://localhost:8080",
        )
        self.assert_refused("metrics_address", metrics_address="https://127.0.0.1:8081")
        ServerOptions(metrics_address="https://127.0.0.1:8081", enable_metrics_api=False)

    def test_password(self) -> None:
        """The password of the key store is not shown."""
        self.assertNotIn("hunter2", repr(ServerOptions(keystore_pass="hunter2")))


class KeyTests(SynchronousTestCase):
    """The names of settings."""

    def test_documented(self) -> None:
        """Every setting says what it does."""
        for attribute in fields(ServerOptions):
            self.assertTrue(attribute.metadata["doc"], attribute.name)

    def test_environment(self) -> None:
        """A variable is "TS_" and the key, but for those which never were."""
        self.assertEqual(environment_names("job_queue_size"), ("TS_JOB_QUEUE_SIZE",))
        self.assertEqual(
            environment_names("token_expiration_min"), ("TS_TOKEN_EXPIRATION_TIME_MIN", "TS_TOKEN_EXPIRATION_MIN")
        )
        self.assertEqual(environment_names("models"), ())
        self.assertEqual(environment_names("python"), ())
        self.assertEqual(environment_names("temp_directory"), ("TEMP",))

    def test_disjoint(self) -> None:
        """No key both counts and has no effect; each that has none says why."""
        self.assertFalse(KEYS & ACCEPTED_WITHOUT_EFFECT.keys())
        self.assertTrue(all(ACCEPTED_WITHOUT_EFFECT.values()))

    def test_switches(self) -> None:
        """All settings which are on or off are known as such."""
        on_or_off = {a.name for a in fields(ServerOptions) if isinstance(getattr(ServerOptions(), a.name), bool)}
        self.assertEqual(SWITCHES, on_or_off)

    def test_read_setting(self) -> None:
        """One setting is read as the whole would read it."""
        self.assertEqual(read_setting("job_queue_size", "7"), 7)
        self.assertEqual(read_setting("keystore_pass", "x"), "x")
        self.assertIn("job_queue_size", str(self.assertRaises(ConfigError, read_setting, "job_queue_size", "0")))
