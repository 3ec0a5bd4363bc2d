# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.config.report`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.config.load_case import PAIRED, LoadCase, other_value
from twisted_serve.config.load import FILE_ONLY
from twisted_serve.config.options import KEYS, SECRETS, read_setting
from twisted_serve.config.properties import parse_properties
from twisted_serve.config.report import config_report
from twisted_serve.config.values import text_of


class ReportTests(LoadCase):
    """What ``--print-config`` prints."""

    def report(self, *words: str, **environ: str) -> str:
        return config_report(self.load(*words, store=True, **environ))

    def test_complete(self) -> None:
        """Every setting has exactly one line, also those which are not set or not shown."""
        lines = self.report().splitlines()
        for key in KEYS | FILE_ONLY:
            shown = [line for line in lines if line.removeprefix("# ").startswith(f"{key}=")]
            self.assertEqual(len(shown), 1, key)

    def test_places(self) -> None:
        """Settings stand below the place that they come from, the defaults last."""
        self.write("enable_envvars_config=true", "job_queue_size=7", "metrics_mode=legacy")
        report = self.report("--dt", TS_METRICS_MODE="prometheus")
        parts = {part.partition("\n")[0]: part.splitlines()[1:] for part in report.split("\n\n")}
        self.assertEqual(
            list(parts),
            [
                f"# {self.cwd / 'config.properties'}",
                "# command line option --disable-token-auth",
                "# command line option --model-store",
                "# environment variable TS_METRICS_MODE",
                "# default",
            ],
        )
        self.assertEqual(
            parts[f"# {self.cwd / 'config.properties'}"], ["enable_envvars_config=true", "job_queue_size=7"]
        )
        self.assertEqual(parts["# command line option --disable-token-auth"], ["disable_token_authorization=true"])
        self.assertEqual(parts["# environment variable TS_METRICS_MODE"], ["metrics_mode=prometheus"])
        self.assertIn("inference_address=http://127.0.0.1:8080", parts["# default"])
        self.assertIn("# keystore=", parts["# default"])
        self.assertIn("use_env_allowed_urls=false", parts["# default"])

    def test_secrets(self) -> None:
        """No secret is shown, whether it was set or not."""
        self.write("keystore_pass=S3cret")
        report = self.report()
        self.assertIn("# keystore_pass=<redacted>\n", report)
        self.assertNotIn("S3cret", report)
        self.assertNotIn("changeit", self.report())
        for key in SECRETS:
            self.assertIn(f"# {key}=<redacted>", report)

    def test_reads_back(self) -> None:
        """As a configuration file it makes the same settings, but for the secrets."""
        said = [f"{key}={other_value(key)}" for key in sorted(KEYS - {*PAIRED, "load_models"} - SECRETS)]
        self.write("model_store=model_store", *said, "models={'a': 1}".replace("'a': 1", '"a \\\\u00e9": {}'))
        first = self.load(store=False)
        self.write(*config_report(first).splitlines(), name="again.properties")
        again = self.load("--ts-config", "again.properties", store=False)
        self.assertEqual(again.options, first.options)
        self.assertEqual(again.warnings, ())

    def test_warnings(self) -> None:
        """What the log would warn of stands at the end, as comments which nothing in them can end."""
        self.write("vmargs=-Xmx1g", "tpyo=1")
        self.assertEqual(
            [line.partition(" in ")[0] for line in self.report().splitlines() if line.startswith("# warning: ")],
            ["# warning: 'tpyo'", "# warning: vmargs"],
        )
        self.write("a\\nb=1")
        self.assertEqual(len([line for line in self.report().splitlines() if "# warning" in line]), 1)

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$\0"), min_size=1).map(str.strip))
    def test_any_text(self, text: str) -> None:
        """Any text is shown so that it is read back as it is, in one line."""
        self.write(name="c.properties")
        loaded = self.load("--ts-config", "c.properties")
        object.__setattr__(loaded.options, "cors_allowed_origin", text or None)
        report = config_report(loaded)
        self.assertEqual(parse_properties(report.encode()).get("cors_allowed_origin"), text or None)

    def test_text_of(self) -> None:
        """The text of every default is read as the default."""
        options = self.load().options
        for key in KEYS:
            text = text_of(getattr(options, key))
            if text is not None:
                self.assertEqual(read_setting(key, text), getattr(options, key), key)
