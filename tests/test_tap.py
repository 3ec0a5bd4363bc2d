# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.tap` and the drop-in.
"""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from twisted.application.service import IService, IServiceMaker
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.plugin import IPlugin, getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_serve.planes.startup import StartupFailure, StartupOutcome
from twisted_serve.service import ModelServer
from twisted_serve.tap import Options, makeService


class Twistd(usage.Options):
    """As much of ``twistd``'s own options as there is to see of them."""

    optParameters = [["rundir", "d", "."]]
    subCommands = [["twisted-serve", None, Options, ""]]


class TapCase(SynchronousTestCase):
    """A directory with a model store."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cwd = Path(directory.name)
        (self.cwd / "models").mkdir()
        self.patch(os, "environ", {})

    def options(self, *words: str) -> Options:
        """Parse ``twistd``'s command line."""
        twistd = Twistd()
        twistd.parseOptions(["--rundir", str(self.cwd), "twisted-serve", *words])
        assert isinstance(twistd.subOptions, Options)
        return twistd.subOptions


class OptionsTests(TapCase):
    """The command line after ``twistd twisted-serve``."""

    def assert_refused(self, said: str, *words: str) -> None:
        """Assert that ``twistd`` is told what is wrong."""
        self.assertIn(said, str(self.assertRaises(usage.UsageError, self.options, *words)))

    def test_same(self) -> None:
        """The options are those of the command; what is about starting one makes no difference."""
        options = self.options(
            "--start", "--foreground", "--ncs", "--model-store", "models", "--dt", "--models", "a.mar"
        )
        loaded = options.loaded.options
        self.assertTrue(loaded.disable_token_authorization)
        self.assertEqual(loaded.load_models, "a.mar")

    def test_directory(self) -> None:
        """Paths are relative to the directory which twistd runs in."""
        (self.cwd / "config.properties").write_text("model_store=models")
        loaded = self.options().loaded.options
        self.assertEqual((loaded.model_store, loaded.token_key_file), (self.cwd / "models", self.cwd / "key_file.json"))

    def test_alone(self) -> None:
        """Without a twistd around it, paths are relative to the working directory."""
        options = Options()
        options.parseOptions(["--model-store", str(self.cwd)])
        self.assertEqual(options.loaded.options.token_key_file, Path.cwd() / "key_file.json")
        self.assertRaises(usage.UsageError, Options().parseOptions)

    def test_wrong(self) -> None:
        """A wrong command line, and settings which cannot be used, are twistd's to tell."""
        self.assert_refused("unrecognized arguments: --port", "--port", "8080")
        self.assert_refused("Missing mandatory parameter --model-store")
        (self.cwd / "config.properties").write_text("job_queue_size=x")
        self.assert_refused("Invalid configuration: job_queue_size must be", "--model-store", "models")

    def test_not_for_twistd(self) -> None:
        """What twistd does itself is refused."""
        self.assert_refused("twistd by its own pid file", "--stop")
        self.assert_refused("--version is for the twisted-serve command", "--version")
        self.assert_refused("--print-config is for the twisted-serve command", "--print-config")

    def test_help(self) -> None:
        """--help names twistd."""
        out = StringIO()
        with redirect_stdout(out):
            self.assertEqual(self.assertRaises(SystemExit, self.options, "--help").code, 0)
        self.assertIn("usage: twistd twisted-serve", out.getvalue())


class MakeServiceTests(TapCase):
    """The service which ``twistd`` runs."""

    def test_service(self) -> None:
        """It is a server that has not been started yet; what is odd about its configuration is logged."""
        seen: list[LogEvent] = []
        observer = cast(ILogObserver, seen.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        (self.cwd / "config.properties").write_text("vmargs=-Xmx1g")
        service = makeService(self.options("--model-store", "models"))
        verifyObject(IService, service)
        self.assertIsInstance(service, ModelServer)
        self.assertFalse(service.running)
        self.assertIn("vmargs", seen[0]["warning"])
        service.running = True
        service.ready.callback(StartupOutcome(1))
        self.assertEqual(seen[-1]["log_format"], "Model server started.")
        self.successResultOf(service.ready)

    def test_failed_models(self) -> None:
        """The last line says which start-up model failed; if all are required, it stops."""
        outcome = StartupOutcome(2, (StartupFailure("greet", "gret.mar", "Model not found at: gret.mar"),))
        line = "1 of 2 start-up models failed: greet (gret.mar): Model not found at: gret.mar"
        for required in (False, True):
            seen: list[LogEvent] = []
            observer = cast(ILogObserver, seen.append)
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)
            (self.cwd / "config.properties").write_text(f"startup_models_required={required}")
            stops: list[bool] = []
            self.patch(reactor, "stop", lambda stops=stops: stops.append(True))
            service = makeService(self.options("--model-store", "models"))
            service.running = True
            service.ready.callback(outcome)
            self.assertEqual(self.successResultOf(service.ready), outcome)
            self.assertEqual(seen[-1]["problem"], line)
            self.assertEqual("Model server started." in [event["log_format"] for event in seen], not required)
            self.assertEqual(stops, [True] if required else [])

    def test_stopped_before_ready(self) -> None:
        """A server which is stopped before it is ready does not say that it has started."""
        seen: list[LogEvent] = []
        observer = cast(ILogObserver, seen.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        makeService(self.options("--model-store", "models")).ready.callback(StartupOutcome())
        self.assertNotIn("Model server started.", [event["log_format"] for event in seen])


class DropInTests(SynchronousTestCase):
    """How ``twistd`` knows us."""

    def test_found(self) -> None:
        """The drop-in is found, and offers the service of tap."""
        (maker,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "twisted-serve"]
        self.assertTrue(IPlugin.providedBy(maker))
        verifyObject(IServiceMaker, maker)
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)
