# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.tap` and the drop-in.
"""

from __future__ import annotations

import atexit
import os
import pwd
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from twisted.application.service import IService, IServiceMaker
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.plugin import IPlugin, getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_serve.command import other_user
from twisted_serve.command.twistd import Hosted
from twisted_serve.config.arguments import parser, settings_parser
from twisted_serve.config.options import KEYS
from twisted_serve.planes.startup import StartupFailure, StartupOutcome
from twisted_serve.service import ModelServer
from twisted_serve.tap import ELSEWHERE, WITHOUT_EFFECT, Options, makeService


class Twistd(usage.Options):
    """As much of ``twistd``'s own options as there is to see of them."""

    optFlags = [["euid", ""]]
    optParameters = [["rundir", "d", "."], ["uid", "u", None, "", int]]
    subCommands = [["twisted-serve", None, Options, ""]]


class TapCase(SynchronousTestCase):
    """A directory with a model store."""

    def setUp(self) -> None:
        self.twistd: list[str] = []
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cwd = Path(directory.name)
        (self.cwd / "models").mkdir()
        self.patch(os, "environ", {})

    def options(self, *words: str) -> Options:
        """Parse ``twistd``'s command line."""
        twistd = Twistd()
        twistd.parseOptions(["--rundir", str(self.cwd), *self.twistd, "twisted-serve", *words])
        assert isinstance(twistd.subOptions, Options)
        return twistd.subOptions


class OptionsTests(TapCase):
    """The command line after ``twistd twisted-serve``."""

    def assert_refused(self, said: str, *words: str) -> None:
        """Assert that the program ends with one line that tells what is wrong."""
        line = self.assertRaises(SystemExit, self.options, *words).code
        self.assertIn(said, line)
        self.assertTrue(line.startswith("twistd twisted-serve: "))
        self.assertNotIn("\n", line)

    def test_same(self) -> None:
        """The options are those of the command."""
        options = self.options("--ncs", "--model-store", "models", "--dt", "--models", "a.mar")
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
        self.assertRaises(SystemExit, Options().parseOptions)

    def test_wrong(self) -> None:
        """A wrong command line, and settings which cannot be used, end the program."""
        self.assert_refused("unrecognized arguments: --port", "--port", "8080")
        self.assert_refused("Missing mandatory parameter --model-store")
        self.assert_refused("unrecognized arguments: forged line", "forged\nline")
        (self.cwd / "config.properties").write_text("job_queue_size=x")
        self.assert_refused("Invalid configuration: job_queue_size must be", "--model-store", "models")

    def test_of_the_command(self) -> None:
        """What the command has more is refused, with a word on what twistd has for it."""
        hidden = {"--ready-fd", "--named"}
        more = set(parser()._option_string_actions) - set(
            settings_parser(ArgumentParser, "", "")._option_string_actions
        )
        self.assertEqual(set(ELSEWHERE), more - hidden)
        for option, instead in ELSEWHERE.items():
            self.assert_refused(f"({instead})", "--model-store", "models", option)
        self.assert_refused(ELSEWHERE["--log-config"], "--log-config=log.xml")

    def test_of_twistd(self) -> None:
        """A directory of twistd's which is not there, and an account which is not given up, are refused."""
        self.options("--model-store", "models")
        self.twistd = ["--euid"]
        self.options("--model-store", "models")
        self.twistd = ["--euid", "--uid", "65534"]
        self.assert_refused("--euid would let models' code become root again", "--model-store", "models")
        models, self.cwd = self.cwd / "models", self.cwd / "nowhere"
        self.twistd = []
        self.assert_refused(f"--rundir directory not found: {self.cwd}", "--model-store", str(models))

    def test_help(self) -> None:
        """--help lists the options that work, and no other."""
        out = StringIO()
        with redirect_stdout(out):
            self.assertEqual(self.assertRaises(SystemExit, self.options, "--help").code, 0)
        self.assertIn("usage: twistd twisted-serve", out.getvalue())
        for option in ELSEWHERE:
            self.assertNotIn(f" {option} ", out.getvalue())

    def test_twist(self) -> None:
        """Twisted's newer command has the same options, and is named."""
        self.patch(sys, "argv", ["/bin/twist"])
        line = self.assertRaises(SystemExit, Options().parseOptions, ["--port"]).code
        self.assertEqual(line, "twist twisted-serve: unrecognized arguments: --port")


class MakeServiceTests(TapCase):
    """The service which ``twistd`` runs."""

    def seen(self) -> list[LogEvent]:
        """Return the list of all that is logged from now on."""
        seen: list[LogEvent] = []
        observer = cast(ILogObserver, seen.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return seen

    def service(self) -> Hosted:
        """Make the service, which is not started, for one test."""
        before = list(globalLogPublisher._observers)
        service = makeService(self.options("--model-store", "models"))
        for observer in set(globalLogPublisher._observers).difference(before):
            self.addCleanup(globalLogPublisher.removeObserver, observer)
        return service

    def ready(self, service: Hosted, outcome: StartupOutcome, running: bool = True) -> None:
        """Let the models of a service be ready, as if it was running."""
        service.running = running
        service.server.ready.callback(outcome)
        self.assertEqual(self.successResultOf(service.server.ready), outcome)

    def test_service(self) -> None:
        """It holds a server that has not been started yet; what is odd about its configuration is logged."""
        seen = self.seen()
        (self.cwd / "config.properties").write_text("vmargs=-Xmx1g\nlog_format=json")
        service = self.service()
        verifyObject(IService, service)
        self.assertIsInstance(service.server, ModelServer)
        self.assertFalse(service.running)
        self.assertEqual(service.secrets, ())
        self.assertIn("vmargs", seen[0]["warning"])
        place = self.cwd / "config.properties"
        self.assertEqual(seen[1]["warning"], f"log_format in {place} has no effect: the log is twistd's")
        self.ready(service, StartupOutcome(1))
        self.assertEqual(seen[-1]["log_format"], "Model server started.")

    def test_log_settings(self) -> None:
        """All settings about the log are known to have no effect, but for the place of the snapshots."""
        about_log = {key for key in KEYS if key.startswith("log_")} | {"metrics_location"}
        self.assertEqual(set(WITHOUT_EFFECT), about_log - {"log_location"})

    def test_failed_models(self) -> None:
        """The last line says which start-up model failed; if all are required, it stops with status 1."""
        outcome = StartupOutcome(2, (StartupFailure("greet", "gret.mar", "Model not found at: gret.mar"),))
        line = "1 of 2 start-up models failed: greet (gret.mar): Model not found at: gret.mar"
        for required in (False, True):
            seen = self.seen()
            (self.cwd / "config.properties").write_text(f"startup_models_required={required}")
            stops: list[bool] = []
            exits: list[object] = []
            self.patch(reactor, "stop", lambda stops=stops: stops.append(True))
            self.patch(atexit, "register", lambda call, *rest, exits=exits: exits.append(call))
            self.ready(self.service(), outcome)
            self.assertEqual(seen[-1]["problem"], line)
            self.assertEqual("Model server started." in [event["log_format"] for event in seen], not required)
            self.assertEqual(stops, [True] if required else [])
            self.assertEqual(len(exits), len(stops))

    def test_stopped_before_ready(self) -> None:
        """A server which is stopped before it is ready does not say that it has started."""
        seen = self.seen()
        self.ready(self.service(), StartupOutcome(), running=False)
        self.assertNotIn("Model server started.", [event["log_format"] for event in seen])

    def test_other_user(self) -> None:
        """About to become another user, root reads files as that user, opens ports early, and runs no plug-in."""
        users: list[tuple[int, int]] = []

        def run_as(uid: int, gid: int, call: Callable[..., Any], *arguments: Any) -> Any:
            users.append((uid, gid))
            return call(*arguments)

        self.patch(other_user, "runAsEffectiveUser", run_as)
        (self.cwd / "config.properties").write_text("inference_address=http://127.0.0.1:80")
        for user, twistd, early in ((0, ["--uid=1"], True), (0, [], False), (1, ["--uid=1"], False)):
            self.patch(os, "geteuid", lambda user=user: user)
            self.twistd = twistd
            service = self.service()
            self.assertEqual(service._ports is not None, early)
            self.assertEqual(service._server is None, early)
            self.assertEqual(users, [(1, pwd.getpwuid(1).pw_gid)] if early else [])
            users.clear()
        self.patch(os, "geteuid", lambda: 0)
        self.twistd = ["--uid=99999999999"]
        line = self.assertRaises(SystemExit, self.options, "--model-store", "models").code
        self.assertEqual(line, "twistd twisted-serve: --uid 99999999999 is no user of this system")

    def test_wrong_plugin(self) -> None:
        """A plug-in that is not there ends the program with one line, before there is a service."""
        (self.cwd / "config.properties").write_text("plugins=nothere")
        line = self.assertRaises(SystemExit, self.service).code
        self.assertTrue(line.startswith("twistd twisted-serve: plugins names 'nothere'"), line)


class DropInTests(SynchronousTestCase):
    """How ``twistd`` knows us."""

    def test_found(self) -> None:
        """The drop-in is found, and offers the service of tap."""
        (maker,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "twisted-serve"]
        self.assertTrue(IPlugin.providedBy(maker))
        verifyObject(IServiceMaker, maker)
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)
