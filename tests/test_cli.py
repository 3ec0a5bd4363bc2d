# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.cli` and :mod:`twisted_serve.launcher`.

No process is started and no signal sent: processes are stood in for where psutil's
and subprocess's are given as arguments.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import psutil
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import __version__, cli, launcher
from twisted_serve.archives.orphans import WorkDirectory
from twisted_serve.command.launching import server_command
from twisted_serve.command.pid_file import NAME, AlreadyRunningError, PidFile
from twisted_serve.config.arguments import CommandLine
from twisted_serve.config.load import LoadedOptions

NOBODY = 2**22 + 1


class Process:
    """A server's process, as psutil shows it, which ends after it was looked at a few times."""

    def __init__(self, pid: int, lives: float = 0, error: Exception | None = None, zombie: bool = False) -> None:
        self.pid, self.lives, self.error, self.zombie = pid, lives, error, zombie
        self.signals: list[int] = []

    def uids(self) -> Any:
        return SimpleNamespace(real=os.getuid())

    def status(self) -> str:
        return psutil.STATUS_ZOMBIE if self.signals and self.zombie else psutil.STATUS_RUNNING

    def is_running(self) -> bool:
        self.lives -= 1
        if self.lives == 0 and self.error is not None:
            raise self.error
        return self.lives > 0

    def send_signal(self, number: int) -> None:
        if self.error is not None and not self.lives:
            raise self.error
        self.signals.append(number)


class CommandCase(SynchronousTestCase):
    """A temporary directory of its own, and a working directory with a model store."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cwd = Path(directory.name)
        (self.cwd / "tmp").mkdir(parents=True)
        (self.cwd / "models").mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.cwd)
        self.patch(tempfile, "tempdir", str(self.cwd / "tmp"))
        self.patch(os, "environ", {})
        self.path = self.cwd / "tmp" / NAME

    def main(self, *words: str) -> tuple[int, str, str]:
        """Run the command; return its status, stdout and stderr."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = cli.main(words)
            except SystemExit as e:
                status = cast(int, e.code)
        return status, out.getvalue(), err.getvalue()


class StopTests(CommandCase):
    """``--stop``."""

    def stop(self, process: Process, foreground: bool = False) -> tuple[int, str]:
        """Stop a process which the pid file names; return the status and stdout."""
        self.path.write_text(str(process.pid))
        self.slept = 0.0

        def sleep(seconds: float) -> None:
            self.slept += seconds

        out = StringIO()
        pid_file = PidFile(self.path.parent, lambda pid: cast(psutil.Process, process), lambda descriptor: process.pid)
        with redirect_stdout(out):
            status = launcher.stop(pid_file, CommandLine(stop=True, foreground=foreground), sleep)
        return status, out.getvalue()

    def test_not_running(self) -> None:
        """There is nothing to stop."""
        self.assertEqual(self.main("--stop"), (0, "TorchServe is not currently running.\n", ""))

    def test_other_server(self) -> None:
        """A server that runs inside another program, as under twistd, is left alone, and is named."""
        work = WorkDirectory.make(self.path.parent)
        self.addCleanup(work.remove)
        status, out, err = self.main("--stop")
        self.assertEqual((status, out), (0, "TorchServe is not currently running.\n"))
        self.assertIn(f"A server runs in process {os.getpid()} (", err)
        self.assertIn("which twisted-serve has not started: end it as it was started.\n", err)

    def test_orphan(self) -> None:
        """The file of a server that is gone is removed."""
        self.path.write_text(str(NOBODY))
        self.assertEqual(
            self.main("--stop"), (0, "Removing orphan pid file.\nTorchServe is not currently running.\n", "")
        )
        self.assertFalse(self.path.exists())

    def test_other_process(self) -> None:
        """Whoever else's process has got the pid is left alone."""
        self.path.write_text(str(os.getpid()))
        self.assertEqual(self.main("--stop")[:2], (0, "TorchServe is not currently running.\n"))

    def test_stopped(self) -> None:
        """The server is told to end, and waited for until it is gone; then its file is gone, too."""
        process = Process(NOBODY, lives=3)
        self.assertEqual(self.stop(process), (0, "TorchServe has stopped.\n"))
        self.assertEqual(process.signals, [signal.SIGTERM])
        self.assertGreater(self.slept, 0)
        self.assertFalse(self.path.exists())

    def test_foreground(self) -> None:
        """With --foreground nothing is said when all is well."""
        self.assertEqual(self.stop(Process(NOBODY, lives=2), foreground=True), (0, ""))

    def test_zombie(self) -> None:
        """A server whose parent has not noticed that it ended has ended."""
        self.assertEqual(self.stop(Process(NOBODY, lives=9999, zombie=True))[0], 0)

    def test_successor(self) -> None:
        """The file of a server that has started in the meantime stays."""
        self.stop(Process(os.getpid(), lives=2))
        self.assertTrue(self.path.exists())

    def test_too_long(self) -> None:
        """After a minute the command gives up and says so, and the file still names the server."""
        self.assertEqual(self.stop(Process(NOBODY, lives=1e9)), (1, "Stopping TorchServe took too long.\n"))
        self.assertAlmostEqual(self.slept, 60)
        self.assertTrue(self.path.exists())

    def test_vanished(self) -> None:
        """A server may end by itself before it is told to."""
        gone = psutil.NoSuchProcess(NOBODY)
        self.assertEqual(self.stop(Process(NOBODY, error=gone)), (0, "TorchServe already stopped.\n"))
        self.assertFalse(self.path.exists())

    def test_vanishing(self) -> None:
        """Or while it is looked at."""
        gone = psutil.NoSuchProcess(NOBODY)
        self.assertEqual(self.stop(Process(NOBODY, lives=2, error=gone)), (0, "TorchServe has stopped.\n"))

    def test_not_allowed(self) -> None:
        """Another user's server is not ours to stop."""
        denied = Process(NOBODY, error=psutil.AccessDenied(NOBODY))
        self.assertIn(str(NOBODY), str(self.assertRaises(PermissionError, self.stop, denied)))


class MainTests(CommandCase):
    """The command as a whole."""

    def serving(self, status: int = 0) -> list[LoadedOptions]:
        """Have servers note their settings instead of serving, and end with ``status``."""
        served: list[LoadedOptions] = []

        def serve(loaded: LoadedOptions, _report: object, _make: object) -> int:
            self.assertEqual(self.path.read_text(), str(os.getpid()))
            served.append(loaded)
            return status

        self.patch(launcher, "serve", serve)
        return served

    def test_version(self) -> None:
        """The first line is the predecessor's, for those who parse it."""
        for flag in ("--version", "-v"):
            self.assertEqual(
                self.main(flag), (0, f"TorchServe Version is 0.12.0\ntwisted_serve Version is {__version__}\n", "")
            )

    def test_print_config(self) -> None:
        """--print-config prints the settings and starts nothing; a wrong one is refused as at start."""
        status, out, err = self.main("--print-config", "--model-store", "models", "--dt")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(f"# command line option --model-store\nmodel_store={self.cwd / 'models'}\n", out)
        self.assertFalse(self.path.exists())
        (self.cwd / "config.properties").write_text("job_queue_size=many")
        status, out, err = self.main("--print-config", "--model-store", "models")
        self.assertEqual((status, out), (1, ""))
        place = self.cwd / "config.properties"
        self.assertEqual(err, f"Invalid configuration: job_queue_size must be a whole number, not 'many' ({place})\n")
        for wrong, why in (
            ('models={"m": {"1.0": {"batchSize": "many"}}}', "models has 'many' for batchSize, expected an integer"),
            ('model_snapshot={"models": {"m": {"1.0": {}}}}', "version 1.0 of model m: marName is missing"),
        ):
            place.write_text(wrong)
            status, out, err = self.main("--print-config", "--model-store", "models")
            self.assertEqual((status, out), (1, ""))
            self.assertIn(why, err)
        place.unlink()
        self.assertEqual(self.main("--print-config"), (1, "Missing mandatory parameter --model-store\n", ""))

    def test_print_config_elsewhere(self) -> None:
        """Settings for another machine are printed here, and what is not here is said, all of it."""
        (self.cwd / "config.properties").write_text(
            "model_store=/no/models\nworkflow_store=/no/flows\ncertificate_file=/no/c.pem\nprivate_key_file=/no/k.pem\n"
            "keystore=/no/k.p12\nclient_ca_file=/no/a.pem\nclient_certificate=optional\nmetrics_config=/no/m.yaml\n"
            "metrics_token_file=/no/t\ntoken_key_file=/no/key_file.json\npython=/no/python\nplugins_path=/no/plugins\n"
            "log_location=/no/logs\n"
        )
        os.environ["TEMP"] = "/no/tmp"
        status, out, err = self.main("--print-config", "--log-config", "/no/log4j2.xml", "--cpp-log-config", "/no/cpp")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("\nmodel_store=/no/models\n", out)
        unchecked = [line for line in out.splitlines() if line.startswith("# not checked here: ")]
        warned = [line for line in out.splitlines() if line.startswith("# warning: ")]
        for path in (
            "models",
            "flows",
            "c.pem",
            "k.pem",
            "k.p12",
            "a.pem",
            "m.yaml",
            "t",
            "key_file.json",
            "python",
            "tmp",
            "log4j2.xml",
            "cpp",
        ):
            found = [line for line in (*unchecked, *warned) if re.search(rf"/no/{re.escape(path)}\b", line)]
            self.assertTrue(found, path)
        self.assertIn("# warning: plugins_path in ", out)
        again = self.cwd / "again.properties"
        again.write_text(out)
        self.assertEqual(self.main("--print-config", "--ts-config", str(again))[0], 0)
        status, out, err = self.main("--start")
        self.assertEqual((status, err), (1, ""))
        self.assertEqual(out, "Invalid temp directory: /no/tmp, please check TEMP environment variable.\n")

    def test_print_config_snapshots(self) -> None:
        """A directory of snapshots that cannot be read is said, too; a start is refused."""
        (self.cwd / "logs").mkdir()
        (self.cwd / "logs" / "config").touch()
        status, out, _err = self.main("--print-config", "--model-store", "models")
        self.assertEqual(status, 0)
        self.assertIn("# not checked here: snapshots cannot be looked for", out)
        self.assertEqual(self.main("--start", "--model-store", "models")[0], 1)

    def test_print_config_content(self) -> None:
        """What is here is looked into: a file with which a server would not start is refused."""
        for key in ("metrics_config", "log_config"):
            (self.cwd / "file").write_text("[")
            (self.cwd / "config.properties").write_text(f"{key}=file")
            status, out, err = self.main("--print-config", "--model-store", "models")
            self.assertEqual((status, out), (1, ""))
            self.assertIn(f"{key} in {self.cwd / 'file'}", err)

    def test_wrong(self) -> None:
        """A wrong command line is status 2, with the usage on stderr."""
        status, out, err = self.main("--start", "--stop")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("usage: twisted-serve", err)

    def test_help(self) -> None:
        """--help is no error."""
        status, out, _err = self.main("--help")
        self.assertEqual(status, 0)
        self.assertIn("--disable-token-auth", out)
        self.assertNotIn("ready-fd", out)

    def test_foreground(self) -> None:
        """With --foreground the command is the server; its pid file lives as long as it does."""
        served = self.serving(status=5)
        self.assertEqual(self.main("--start", "--foreground", "--model-store", "models"), (5, "", ""))
        self.assertEqual(served[0].options.model_store, self.cwd / "models")
        self.assertFalse(self.path.exists())

    def test_crash(self) -> None:
        """The pid file is removed however the server ends."""

        def serve(_loaded: object, _report: object, _make: object) -> NoReturn:
            raise OSError("bad")

        self.patch(launcher, "serve", serve)
        self.assertEqual(self.main("--foreground", "--model-store", "models"), (1, "", "bad\n"))
        self.assertFalse(self.path.exists())

    def test_background(self) -> None:
        """Otherwise it starts one, with the words it was given; it needs no --start for that."""
        launched: list[Sequence[str]] = []

        def launch(words: Sequence[str]) -> int:
            launched.append(words)
            return 0

        self.patch(launcher, "launch", launch)
        self.assertEqual(self.main("--ncs", "--model-store", "models"), (0, "", ""))
        self.assertEqual(launched, [server_command(["--ncs", "--model-store", "models"])])
        self.assertFalse(self.path.exists())

    def test_launcher_checks(self) -> None:
        """What is wrong with the configuration is said before anything is started."""

        def launch(_words: object) -> NoReturn:
            raise AssertionError("started")

        self.patch(launcher, "launch", launch)
        self.assertEqual(self.main("--start"), (1, "Missing mandatory parameter --model-store\n", ""))
        self.assertEqual(
            self.main("--ts-config", "x", "--model-store", "models"), (1, "--ts-config file not found: x\n", "")
        )
        (self.cwd / "config.properties").write_text("model_store=models\ninference_address=8080")
        self.assertEqual(
            self.main("--start"),
            (
                1,
                "",
                "Invalid configuration: Invalid binding address: 8080 "
                f"(inference_address in {self.cwd / 'config.properties'})\n",
            ),
        )

    def test_already_running(self) -> None:
        """There is one server at a time."""

        def claim(_self: object) -> NoReturn:
            raise AlreadyRunningError

        self.serving()
        self.patch(PidFile, "claim", claim)
        status, out, _err = self.main("--foreground", "--model-store", "models")
        self.assertEqual(status, 1)
        self.assertIn("TorchServe is already running, please use torchserve --stop to stop TorchServe.", out)

    def test_running_seen(self) -> None:
        """One that is running is seen before anything is done."""
        self.path.write_text("7")
        pid_file = PidFile(self.path.parent, lambda pid: cast(psutil.Process, Process(pid)), lambda descriptor: 7)
        self.assertRaises(AlreadyRunningError, launcher.start, pid_file, CommandLine(), [])

    def test_torchserve_running(self) -> None:
        """A TorchServe that the file names is neither stopped nor displaced; both commands say so."""
        self.path.write_text(str(os.getpid()))
        self.patch(PidFile, "torchserve", lambda _self: 77)
        status, out, err = self.main("--stop")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("TorchServe itself runs as process 77", err)
        self.assertTrue(self.path.exists())

    def test_shims(self) -> None:
        """The word "shims" as the first asks for commands, not for a server."""
        status, out, err = self.main("shims", "bin")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(f"{self.cwd / 'bin' / 'torchserve'}: written, runs {sys.executable}\n", out)

    def test_no_pid_file(self) -> None:
        """A pid file which cannot be written is said, and nothing is started."""
        served = self.serving()
        self.path.mkdir()
        status, _out, err = self.main("--foreground", "--model-store", "models")
        self.assertEqual((status, served), (1, []))
        self.assertIn(str(self.path), err)
        self.assertEqual(os.listdir(self.path.parent), [NAME])
