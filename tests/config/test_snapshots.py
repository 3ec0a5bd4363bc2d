# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.config.snapshots`, and for what :mod:`twisted_serve.config.load` makes of what it finds."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.config.load_case import LoadCase
from twisted_serve.config.options import ServerOptions
from twisted_serve.config.snapshots import find_snapshots, snapshot_moment, snapshot_name
from twisted_serve.config.values import ConfigError

MODELS = '{"modelCount": 1, "models": {"m": {"1.0": {"marName": "m.mar"}}}}'
OLD, NEW = "20260101000000000-startup.cfg", "20260101000000001-shutdown.cfg"


class NameTests(LoadCase):
    """The names of files."""

    def test_name(self) -> None:
        """A name has local time in milliseconds, and what the snapshot was taken for."""
        moment = datetime(2026, 1, 2, 3, 4, 5, 6999, timezone.utc)
        self.assertEqual(snapshot_name(moment, "startup"), "20260102030405006-startup.cfg")

    @given(st.datetimes(), st.sampled_from(["startup", "snapshot", "shutdown"]))
    def test_round_trip(self, moment: datetime, occasion: str) -> None:
        """The moment can be read in the name."""
        whole = moment - timedelta(microseconds=moment.microsecond % 1000)
        if moment.year >= 1000:
            self.assertEqual(snapshot_moment(snapshot_name(moment, occasion)), whole)  # type: ignore[arg-type]

    @given(st.one_of(st.text(), st.from_regex(r"[0-9]{17}-[a-z]{7,8}\.cfg")))
    def test_anything(self, name: str) -> None:
        """Any name is that of a snapshot, or not."""
        moment = snapshot_moment(name)
        if moment is not None:
            self.assertIn(name[18:], ("startup.cfg", "snapshot.cfg", "shutdown.cfg"))

    def test_no_date(self) -> None:
        """Digits which are no date are no name."""
        self.assertIsNone(snapshot_moment("20261301000000000-startup.cfg"))


class ReadingTests(LoadCase):
    """The newest snapshot at start."""

    def setUp(self) -> None:
        super().setUp()
        self.logs = self.cwd / "logs" / "config"
        self.logs.mkdir(parents=True)

    def snapshot(self, *lines: str, name: str = NEW) -> Path:
        self.write(f"model_snapshot={MODELS}", *lines, name=f"logs/config/{name}")
        return self.logs / name

    def test_newest(self) -> None:
        """The newest one by name is read: its models, and its settings."""
        self.snapshot("job_queue_size=5", name=OLD)
        newest = self.snapshot("job_queue_size=6")
        loaded = self.load()
        self.assertEqual(loaded.options.job_queue_size, 6)
        self.assertEqual(loaded.sources["model_snapshot"], str(newest))
        self.assertEqual(loaded.warnings, ())

    def test_file_above(self) -> None:
        """What ``config.properties`` says counts more, unlike with the predecessor, which does not read it then."""
        self.snapshot("job_queue_size=6", "max_request_size=7")
        self.write("job_queue_size=9")
        loaded = self.load()
        self.assertEqual((loaded.options.job_queue_size, loaded.options.max_request_size), (9, 7))
        self.assertIsNotNone(loaded.options.model_snapshot)

    def test_named_file(self) -> None:
        """A file that is named is the only one which counts; it may be a snapshot."""
        newest = self.snapshot("job_queue_size=6")
        self.write(name="other.properties")
        self.assertIsNone(self.load("--ts-config", "other.properties").options.model_snapshot)
        self.assertIsNone(self.load(TS_CONFIG_FILE="other.properties").options.model_snapshot)
        self.assertIsNotNone(self.load("--ts-config", str(newest)).options.model_snapshot)

    def test_switched_off(self) -> None:
        """With ``--ncs`` none is read, and none is to be written."""
        self.snapshot("job_queue_size=6")
        loaded = self.load("--ncs")
        self.assertEqual((loaded.options.job_queue_size, loaded.options.model_snapshot), (100, None))
        self.assertIsNone(loaded.snapshots)

    def test_strays(self) -> None:
        """Other files, directories and links are passed over, with a line that names some."""
        newest = self.snapshot()
        for name in (".DS_Store", "notes", "20261301000000000-startup.cfg"):
            (self.logs / name).touch()
        (self.logs / "20270101000000000-startup.cfg").symlink_to(newest)
        loaded = self.load()
        self.assertEqual(loaded.sources["model_snapshot"], str(newest))
        [warning] = loaded.warnings
        self.assertIn("'.DS_Store', '20261301000000000-startup.cfg', '20270101000000000-startup.cfg', …", warning)

    def test_planted(self) -> None:
        """What everybody can write to, or somebody else has written, is passed over like a stray file."""
        (self.logs / NEW).write_text("model_store=elsewhere")
        (self.logs / NEW).chmod(0o646)
        loaded = self.load()
        self.assertEqual(loaded.options.model_store, self.cwd / "model_store")
        self.assertIn(NEW, loaded.warnings[0])
        (self.logs / NEW).chmod(0o644)
        self.patch(os, "geteuid", lambda: os.getuid() + 1)
        # Root's files are everybody's to believe in.
        self.assertEqual(find_snapshots(self.logs).newest is None, os.getuid() != 0)

    def test_access(self) -> None:
        """A snapshot that was planted, or is TorchServe's, cannot switch tokens off."""
        newest = self.snapshot("disable_token_authorization=true", "enable_model_api=true", "keystore_pass=S3cret")
        loaded = self.load()
        options = loaded.options
        self.assertEqual((options.disable_token_authorization, options.enable_model_api), (False, False))
        self.assertEqual(options.keystore_pass, "changeit")
        self.assertEqual(
            loaded.warnings,
            tuple(
                f"{key} in {newest} is ignored: no snapshot decides on that"
                for key in ("disable_token_authorization", "enable_model_api", "keystore_pass")
            ),
        )

    def test_other_installation(self) -> None:
        """The interpreter that TorchServe ran in, and the GPUs that it found, are not taken for this server's."""
        lines = ("python=/opt/torchserve/bin/python3", "number_of_gpu=4", "version=0.12.0", "job_queue_size=7")
        newest = self.snapshot(*lines)
        default = ServerOptions()
        for words in ((), ("--ts-config", str(newest))):
            loaded = self.load(*words)
            self.assertEqual(loaded.options.python, default.python)
            self.assertEqual(loaded.options.number_of_gpu, default.number_of_gpu)
            self.assertEqual(loaded.options.job_queue_size, 7)
            assert loaded.options.model_snapshot is not None
            self.assertEqual(
                [each.partition(": ")[0] for each in loaded.warnings if "ignored" in each],
                [f"number_of_gpu in {newest} is ignored", f"python in {newest} is ignored"],
            )

    def test_own_settings(self) -> None:
        """What the operator's file says of the interpreter counts; what this server kept of the GPUs, too."""
        self.snapshot("python=/opt/torchserve/bin/python3", "number_of_gpu=1")
        self.write("python=/opt/mine/bin/python3")
        options = self.load().options
        self.assertEqual((options.python, options.number_of_gpu), ("/opt/mine/bin/python3", 1))

    def test_models_ignored(self) -> None:
        """Whoever names models although there is a snapshot is told that it wins."""
        newest = self.snapshot()
        [warning] = self.load("--models", "all").warnings
        self.assertEqual(
            warning,
            f"load_models in command line option --models is ignored: the models of {newest} are restored instead; "
            "--ncs starts without snapshots",
        )

    def test_broken(self) -> None:
        """A snapshot that cannot be read keeps the server from starting, naming the file."""
        (self.logs / NEW).write_text("model_snapshot={")
        error = self.assertRaises(ConfigError, self.load)
        self.assertIn("model_snapshot must be a JSON object", str(error))
        self.assertIn(NEW, str(error))

    def test_log_location(self) -> None:
        """Snapshots are where the log files are."""
        self.snapshot()
        loaded = self.load(LOG_LOCATION="elsewhere")
        self.assertIsNone(loaded.options.model_snapshot)
        assert loaded.snapshots is not None
        self.assertEqual(loaded.snapshots.directory, self.cwd / "elsewhere" / "config")

    def test_no_directory(self) -> None:
        """What is no directory cannot be looked into, and what is not there has none."""
        self.assertIsNone(find_snapshots(self.cwd / "nowhere").newest)
        self.write(name="file")
        self.assertRaises(ConfigError, find_snapshots, self.cwd / "file")


class KeptTests(LoadCase):
    """What the next snapshot says besides the models."""

    def kept(self, *words: str, **environ: str) -> dict[str, str]:
        snapshots = self.load(*words, store=True, **environ).snapshots
        assert snapshots is not None
        kept = dict(snapshots.settings)
        self.assertEqual(kept.pop("model_store"), str(self.cwd / "model_store"))
        return kept

    def test_file(self) -> None:
        """What the file says is kept as it stands there: a variable's value is not written down."""
        self.write("cors_allowed_origin=$$ORIGIN$$", "job_queue_size=7", "load_models=a.mar", "nonsense=S3cret")
        self.assertEqual(
            self.kept(ORIGIN="http://o"),
            {"cors_allowed_origin": "$$ORIGIN$$", "job_queue_size": "7", "load_models": "a.mar"},
        )

    def test_never(self) -> None:
        """Secrets and the switches of access are not, wherever they were said; nor what flags and variables say."""
        self.write(
            "enable_envvars_config=true",
            "disable_token_authorization=true",
            "enable_model_api=true",
            "keystore_pass=S3cret",
            "python=/opt/mine/bin/python3",
            f"model_snapshot={MODELS}",
        )
        kept = self.kept("--dt", "--enable-model-api", "--models", "a.mar", TS_JOB_QUEUE_SIZE="9", TS_KEYSTORE_PASS="p")
        self.assertEqual(kept, {"enable_envvars_config": "true"})
