# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.command.run`.

:class:`Reactor` runs a server to its end as a reactor does, without a port or a signal.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from typing import NoReturn, cast
from unittest.mock import patch

from twisted.application.service import MultiService
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.command import run
from twisted_serve.config.addresses import Address
from twisted_serve.config.load import LoadedOptions
from twisted_serve.config.options import ServerOptions
from twisted_serve.config.values import ConfigError
from twisted_serve.errors import InvalidModel
from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.roles import Role
from twisted_serve.planes.startup import StartupFailure, StartupOutcome

KEY = "Zq3-_xW9aBcDeFgHiJkLmN"


class Reactor(MemoryReactorClock):
    """Runs what it was asked to, then ``script``, then stops, with its shutdown triggers."""

    def __init__(self, *script: Callable[[], object]) -> None:
        super().__init__()
        self.script = script
        self.unfinished = 0

    def run(self) -> None:
        self.running = True
        for function, args, kwargs in self.whenRunningHooks:
            function(*args, **kwargs)
        for step in self.script:
            if self.running:
                step()
        self.stop()

    def stop(self) -> None:
        if not self.running:
            return
        self.running = False
        for function, args, kwargs in self.triggers.get("before", {}).get("shutdown", []):
            self.unfinished += 1
            maybeDeferred(function, *args, **kwargs).addCallback(self._finished)

    def _finished(self, _result: object) -> None:
        self.unfinished -= 1


class Server(MultiService):
    """A server which is ready when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.ready: Deferred[StartupOutcome | None] = Deferred()
        self.secrets: tuple[str, ...] = ()
        self.addresses: dict[Role, Address] = {}
        self.grpc_addresses: dict[Role, Address] = {}
        self.error = error
        self.reloads = 0

    def startService(self) -> None:
        if self.error is not None:
            raise self.error
        super().startService()
        self.secrets = (KEY,)

    def reload(self) -> None:
        self.reloads += 1

    def hurry(self) -> None:
        raise AssertionError("nobody is in a hurry")

    def stopService(self) -> Deferred[None]:
        self.secrets = ()
        stopped: Deferred[None] = maybeDeferred(super().stopService).addCallback(lambda _: None)
        return stopped


class RunServerTests(SynchronousTestCase):
    """A server's life from its start to its end."""

    def setUp(self) -> None:
        self.out = StringIO()
        self.reports: list[str | None] = []
        self.started: list[bool] = []

    def begin_logging(self, observer: ILogObserver) -> None:
        """Have the log of this test go to an observer."""
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def run_server(
        self,
        server: Server,
        *script: Callable[[], object],
        warnings: tuple[str, ...] = (),
        options: ServerOptions | None = None,
    ) -> int:
        """Run ``server``, with ``script`` happening while it is up, and return the exit status."""
        self.reactor = Reactor(*script)
        loaded = LoadedOptions(options or ServerOptions(log_files=False), {}, warnings)
        status = run.run_server(
            loaded,
            cast(IServeReactor, self.reactor),
            self.reports.append,
            self.begin_logging,
            lambda _reactor, _loaded: server,
            out=self.out,
            started=lambda: self.started.append(bool(server.running)),
        )
        self.assertFalse(server.running)
        self.assertEqual(self.reactor.unfinished, 0)
        return status

    def test_ready(self) -> None:
        """A server that is ready says so to its launcher and on stdout, serves, and ends with status 0."""
        server = Server()

        def serving() -> None:
            self.assertTrue(server.running)
            self.assertEqual(self.reports, [None])
            self.assertIn("Model server started.\n", self.out.getvalue().splitlines(keepends=True))

        self.assertEqual(self.run_server(server, lambda: server.ready.callback(None), serving), 0)
        self.assertEqual(self.reports[0], None)

    def test_started(self) -> None:
        """What is to be done once after the start is done when the server runs, before any client is served."""
        server = Server()
        self.assertEqual(self.run_server(server, lambda: self.assertEqual(self.started, [True])), 0)
        self.assertEqual(self.started, [True])

    def test_failed_models(self) -> None:
        """A start-up model that failed is in the last line of the start, after the one that scripts wait for."""
        server = Server()
        outcome = StartupOutcome(2, (StartupFailure("greet", "gret.mar", "Model not found at: gret.mar"),))

        def serving() -> None:
            started, last = self.out.getvalue().splitlines()[-2:]
            self.assertEqual(started, "Model server started.")
            self.assertIn("[ERROR]", last)
            self.assertTrue(
                last.endswith(" 1 of 2 start-up models failed: greet (gret.mar): Model not found at: gret.mar"), last
            )
            self.assertEqual(self.reports, [None])

        self.assertEqual(self.run_server(server, lambda: server.ready.callback(outcome), serving), 0)

    def test_required_models(self) -> None:
        """If all start-up models are required, the server ends with status 1, and its launcher is told why."""
        server = Server()
        outcome = StartupOutcome(1, (StartupFailure(None, "gret.mar", "Model not found at: gret.mar"),))
        options = ServerOptions(log_files=False, startup_models_required=True)
        status = self.run_server(server, lambda: server.ready.callback(outcome), options=options)
        self.assertEqual(status, 1)
        self.assertEqual(self.reports[0], "1 of 1 start-up models failed: gret.mar: Model not found at: gret.mar")
        self.assertNotIn("Model server started.", self.out.getvalue())
        server = Server()
        self.assertEqual(self.run_server(server, lambda: server.ready.callback(StartupOutcome(1)), options=options), 0)

    def test_not_before_it_is_ready(self) -> None:
        """Listening is not being ready."""
        server = Server()
        self.run_server(server, lambda: self.assertEqual(self.reports, []))
        self.assertNotIn("Model server started.", self.out.getvalue())
        self.assertEqual(self.reports, ["The server was stopped before it was ready."])

    def test_stopped_early(self) -> None:
        """A server that is stopped while it loads has not failed, also if its loading is cancelled by that."""
        server = Server()
        server.ready.addErrback(lambda failure: failure)
        self.reactor = Reactor()

        class Stopping(Server):
            def stopService(self) -> Deferred[None]:
                self.ready.cancel()
                return super().stopService()

        self.assertEqual(self.run_server(Stopping()), 0)
        self.assertNotIn("ERROR", self.out.getvalue())

    def test_cannot_stop(self) -> None:
        """A server that does not stop in time ends all the same, and the log says so."""

        class Stuck(Server):
            def stopService(self) -> Deferred[None]:
                super().stopService()
                return Deferred()

        def stop() -> None:
            self.reactor.stop()
            self.reactor.advance(ServerOptions().shutdown_timeout + run.STOP_MARGIN)

        self.assertEqual(self.run_server(Stuck(), stop), 0)
        self.assertIn("The server did not stop as it should", self.out.getvalue())
        self.assertEqual(len(self.flushLoggedErrors(defer.TimeoutError)), 1)

    def test_cannot_start(self) -> None:
        """A server that cannot start tells why, in one line, and ends with status 1."""
        for error, line in (
            (OSError(13, "Permission denied", "key_file.json"), "[Errno 13] Permission denied: 'key_file.json'"),
            (ConfigError("certificate is broken"), "Invalid configuration: certificate is broken"),
            (InvalidModel("no manifest"), "no manifest"),
            (RuntimeError(), "RuntimeError"),
        ):
            self.reports.clear()
            self.assertEqual(self.run_server(Server(error)), 1)
            self.assertEqual(self.reports[0], line)
            self.assertNotIn("Model server started.", self.out.getvalue())
        self.flushLoggedErrors(RuntimeError)

    def test_port_taken(self) -> None:
        """A port which is taken is named."""
        self.run_server(Server(CannotListenError("127.0.0.1", 8080, OSError(98, "Address already in use"))))
        self.assertIn("127.0.0.1:8080", str(self.reports[0]))
        self.assertIn("Address already in use", str(self.reports[0]))

    def test_unexpected(self) -> None:
        """An error which nobody expected is in the log with its traceback; an expected one is not."""
        self.run_server(Server(OSError("full")))
        self.assertNotIn("Traceback", self.out.getvalue())
        self.run_server(Server(ZeroDivisionError("bug")))
        self.assertIn("Traceback", self.out.getvalue())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_loading_fails(self) -> None:
        """A server whose loading fails is stopped."""
        server = Server()
        status = self.run_server(server, lambda: server.ready.errback(InvalidModel("broken")), self.fail)
        self.assertEqual((status, self.reports[0]), (1, "broken"))

    def test_cannot_be_made(self) -> None:
        """A server which cannot even be made is told of, too."""

        def broken(_reactor: object, _loaded: object) -> NoReturn:
            raise ValueError("no such thing")

        reactor = cast(IServeReactor, Reactor(self.fail))
        loaded = LoadedOptions(ServerOptions(), {}, ())
        status = run.run_server(loaded, reactor, self.reports.append, self.begin_logging, broken, out=self.out)
        self.assertEqual((status, self.reports[0]), (1, "Invalid configuration: no such thing"))

    def test_log(self) -> None:
        """The warnings of the configuration are logged, and no live key is."""
        server = Server()
        self.run_server(
            server,
            lambda: Logger("twisted_serve.test").info("{header}", header=f"Bearer {KEY}"),
            warnings=("a {brace} has no effect",),
        )
        self.assertIn("[WARN ] main twisted_serve.server - a {brace} has no effect\n", self.out.getvalue())
        self.assertIn("Bearer <redacted>", self.out.getvalue())
        self.assertIn("Torchserve stopped.", self.out.getvalue())

    def test_nobody_reads(self) -> None:
        """A server goes on when its stdout is closed."""

        class Closed(StringIO):
            def write(self, _text: str) -> int:
                raise BrokenPipeError

        self.out = Closed()
        server = Server()
        self.assertEqual(self.run_server(server, lambda: server.ready.callback(None)), 0)
        self.assertIsNone(self.reports[0])


class ReportTests(SynchronousTestCase):
    """What a launcher is told."""

    def told(self, *reasons: str | None) -> str:
        """Report through a pipe, and return what came out."""
        reading, writing = os.pipe()
        report = run.report_to(writing)
        for reason in reasons:
            report(reason)
        with open(reading, encoding="utf-8") as status:
            return status.read()

    def test_ready(self) -> None:
        """It is ready; what happens later is not told, and the descriptor is closed."""
        self.assertEqual(self.told(None, "late"), "ready\n")

    def test_failed(self) -> None:
        """It failed, in one line."""
        self.assertEqual(self.told("no\n port"), "failed: no port\n")

    def test_not_inherited(self) -> None:
        """No child of the server holds the launcher up."""
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        report = run.report_to(writing)
        self.assertFalse(os.get_inheritable(writing))
        os.close(reading)
        report("nobody reads this")

    def test_no_launcher(self) -> None:
        """Without a launcher failures go to stderr."""
        for reason, line in ((None, ""), ("no port", "no port\n")):
            err = StringIO()
            with redirect_stderr(err):
                run.report_to(None)(reason)
            self.assertEqual(err.getvalue(), line)


class DescribeFailureTests(SynchronousTestCase):
    """Why a server did not start."""

    def test_lines(self) -> None:
        """An error's own text, or its name when it has none."""
        self.assertEqual(run.describe_failure(OSError("full")), "full")
        self.assertEqual(run.describe_failure(CancelledError()), "CancelledError")
        self.assertEqual(run.describe_failure(ConfigError("bad")), "Invalid configuration: bad")


class DescriptorLimitTests(SynchronousTestCase):
    """Tests for how many descriptors the process of a server may have."""

    def limited(self, soft: int, hard: int, error: Exception | None = None) -> list[tuple[int, int]]:
        """Give the limits that are set where these are there."""
        wanted: list[tuple[int, int]] = []

        def set_limits(which: int, limits: tuple[int, int]) -> None:
            wanted.append(limits)
            if error is not None:
                raise error

        with (
            patch.object(resource, "getrlimit", lambda which: (soft, hard)),
            patch.object(resource, "setrlimit", set_limits),
        ):
            run.raise_descriptor_limit()
        return wanted

    def test_raised(self) -> None:
        """It has what the system allows it, within reason; what is enough is left alone."""
        most = run.MOST_DESCRIPTORS
        self.assertEqual(self.limited(1024, 4096), [(4096, 4096)])
        self.assertEqual(self.limited(1024, 1 << 20), [(most, 1 << 20)])
        self.assertEqual(self.limited(1024, resource.RLIM_INFINITY), [(most, resource.RLIM_INFINITY)])
        for soft, hard in ((4096, 4096), (1 << 20, 1 << 20), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
            self.assertEqual(self.limited(soft, hard), [])

    def test_refused(self) -> None:
        """A system that refuses has a server all the same."""
        self.assertEqual(self.limited(1024, 4096, ValueError("not allowed")), [(4096, 4096)])
