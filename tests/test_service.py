# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.service``: the life of a server, from its start to its end, in memory.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import twisted_serve.assembly.dependencies
import twisted_serve.assembly.server
from tests.service_case import ServiceTestCase
from twisted_serve.archives.locating import Source
from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.auth.key_file import KeyFileInUse
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.options import ServerOptions
from twisted_serve.planes.startup import StartupOutcome
from twisted_serve.service import ModelServer
from twisted_serve.system.heap import INTERVAL
from twisted_serve.testing.server import MemoryServer, MemoryServeReactor, Role
from twisted_serve.wire.messages import Item

ONE = "http://127.0.0.1:8080"


class LifeTests(ServiceTestCase):
    """Tests for starting and stopping."""

    def test_start_and_stop(self) -> None:
        """A server that was started has its files, its listeners and its keys; when it was stopped, none of them."""
        server = self.server()
        self.assertIsNone(server.keys)
        self.assertRaises(KeyError, server.site_of, Role.INFERENCE)
        server.startService()
        self.assertEqual(self.reactor.listening, {8080, 8081, 8082})
        self.assertEqual(set(server.addresses), set(Role))
        self.assertEqual(self.successResultOf(server.ready), StartupOutcome())
        assert server.keys is not None
        self.assertIn(server.keys.api.secret, (self.directory / "key_file.json").read_text())
        self.stop(server)
        self.assertIsNone(server.keys)
        self.assertEqual(server.addresses, {})
        self.assertRaises(KeyError, server.site_of, Role.INFERENCE)

    def test_more_connections_than_files(self) -> None:
        """More connections than there can be files are warned about, and not promised."""
        with capturedLogs() as logs:
            most = twisted_serve.assembly.server.max_connections(ServerOptions(max_connections=1 << 40))
            self.assertEqual(twisted_serve.assembly.server.max_connections(ServerOptions()), most)
            self.assertEqual(twisted_serve.assembly.server.max_connections(ServerOptions(max_connections=1)), 1)
        [said] = [formatEvent(each) for each in logs]
        self.assertIn(f"max_connections is {1 << 40}, but", said)
        self.assertIn(f"enough for {most}: that is taken", said)

    def test_free_memory(self) -> None:
        """While it runs it gives free memory back, again and again."""
        server = self.server()
        server.startService()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.trimmed, [0.0, INTERVAL])
        self.stop(server)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.trimmed), 2)

    def test_never_started(self) -> None:
        """What was never started can be stopped, and leaves nothing."""
        self.stop(self.server())

    def test_as_a_child(self) -> None:
        """It goes with the application that it is part of, and two of them can be in one process."""
        application = MultiService()
        for number in range(2):
            self.server(
                token_key_file=self.directory / f"{number}.json",
                inference_address=f"http://127.0.0.1:{9000 + number}",
                management_address=f"http://127.0.0.1:{9000 + number}",
                enable_metrics_api=False,
            ).setServiceParent(application)
        application.startService()
        first, second = application
        self.assertNotEqual(first.keys, second.keys)
        self.successResultOf(maybeDeferred(application.stopService))
        self.assertNothingLeft()

    def test_restart(self) -> None:
        """The same server can be started again, with other keys, and is ready again in its own time."""
        server = self.server(load_models=self.model("m"))
        server.startService()
        first, keys = server.ready, server.keys
        self.stop(server)
        self.provider.load_delay = 5
        server.startService()
        self.assertIsNot(server.ready, first)
        self.assertNotEqual(server.keys, keys)
        self.assertNoResult(server.ready)
        self.clock.advance(5)
        self.successResultOf(server.ready)
        self.stop(server)

    def test_start_twice(self) -> None:
        """A server which runs is not started again, and goes on."""
        for disabled in (False, True):
            server = self.server(disable_token_authorization=disabled)
            server.startService()
            self.assertRaises(RuntimeError, server.startService)
            server.site_of(Role.INFERENCE)
            self.stop(server)

    def test_stop_twice(self) -> None:
        """Who stops a server that is being stopped already waits for the same end, and cannot call it off."""
        server = self.server(load_models=self.model("m"))
        server.startService()
        stopping: Deferred[None] = Deferred()
        with patch.object(self.provider, "stop", lambda: stopping):
            first, second, third = (server.stopService() for _ in range(3))
            third.addErrback(lambda failure: None)
            third.cancel()
            self.assertNoResult(first)
            self.assertNoResult(second)
            stopping.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertNothingLeft()
        self.successResultOf(server.stopService())

    def test_shutdown_trigger(self) -> None:
        """However a reactor comes to its end, the key file goes."""
        server = self.server()
        server.startService()
        self.reactor.shut_down()
        self.assertFalse((self.directory / "key_file.json").exists())
        self.stop(server)

    def test_trouble_at_the_end(self) -> None:
        """Whatever fails while it stops, the files are removed, and it is said."""
        server = self.server()
        server.startService()
        with patch.object(self.provider, "stop", lambda: maybeDeferred(lambda: 1 / 0)):
            self.failureResultOf(server.stopService(), ZeroDivisionError)
        self.assertNothingLeft()


class FailedStartTests(ServiceTestCase):
    """Tests for what keeps a server from starting: nothing is left, and it can be tried again."""

    def assertFails(self, error: type[Exception], **options: Any) -> Exception:
        server = self.server(**options)
        raised = self.assertRaises(error, server.startService)
        self.assertNothingLeft()
        self.assertEqual((server.running, server.addresses, server.keys), (False, {}, None))
        self.assertNoResult(server.ready)
        self.successResultOf(server.stopService())
        assert isinstance(raised, Exception)
        return raised

    def test_port_in_use(self) -> None:
        """Each of its ports may be somebody else's."""
        for port in (8080, 8081, 8082):
            for disabled in (False, True):
                self.reactor.taken = {port}
                self.assertFails(CannotListenError, disable_token_authorization=disabled)
        self.reactor.taken = {8082}
        server = self.server()
        self.assertRaises(CannotListenError, server.startService)
        self.reactor.taken = set()
        server.startService()
        self.successResultOf(server.ready)
        self.stop(server)

    def test_certificate(self) -> None:
        """A certificate which cannot be used is named."""
        error = self.assertFails(
            ValueError, management_address="https://127.0.0.1:8443", keystore=self.directory / "absent.p12"
        )
        self.assertIn("absent.p12", str(error))

    def test_key_file(self) -> None:
        """A key file which cannot be written is named."""
        error = self.assertFails(OSError, token_key_file=self.directory / "absent" / "key_file.json")
        self.assertIn("absent/key_file.json", str(error))

    def test_key_file_of_another(self) -> None:
        """A second server in the same directory does not start, and the first one keeps its keys."""
        first = self.server()
        first.startService()
        content = (self.directory / "key_file.json").read_text()
        second = self.server(inference_address="http://127.0.0.1:9090")
        self.assertRaises(KeyFileInUse, second.startService)
        self.successResultOf(second.stopService())
        self.assertEqual((self.directory / "key_file.json").read_text(), content)
        self.assertEqual(len(list(self.directory.glob("twisted_serve-*"))), 1)
        self.stop(first)

    def test_temporary_directory(self) -> None:
        """A temporary directory which is not there is named."""
        self.assertIn("absent", str(self.assertFails(OSError, temp_directory=self.directory / "absent")))

    def test_headers(self) -> None:
        """A header which cannot be sent is named."""
        self.assertIn("cors_allowed_origin", str(self.assertFails(ValueError, cors_allowed_origin="\u2603")))

    def test_defect(self) -> None:
        """A defect after the key file was written does not leave it."""
        with patch.object(twisted_serve.assembly.server, "ExpiryChecker", lambda *_args: 1 / 0):
            self.assertFails(ZeroDivisionError)


class AnnouncementTests(ServiceTestCase):
    """Tests for what is said at the start."""

    def lines(self, **options: Any) -> list[tuple[LogLevel, str]]:
        server = self.server(**options)
        with capturedLogs() as events:
            server.startService()
        self.stop(server)
        return [(event["log_level"], str(formatEvent(event))) for event in events]

    def test_tokens(self) -> None:
        """With tokens, the predecessor's block with the key file's path, and no key."""
        texts = [text for _level, text in self.lines()]
        self.assertEqual(texts.count("######"), 2)
        self.assertIn(f"Key file located at {self.directory / 'key_file.json'}", texts)
        self.assertIn("Token Authorization Enabled", texts)
        self.assertIn("Inference API bind to: http://127.0.0.1:8080", texts)

    def test_no_tokens(self) -> None:
        """Without tokens a warning for each listener that would have needed them, and none for the metrics."""
        warnings = [text for level, text in self.lines(disable_token_authorization=True) if level is LogLevel.warn]
        self.assertEqual(len(warnings), 2)

    def test_no_tokens_on_the_network(self) -> None:
        """Without tokens, and open to the network, it is louder still."""
        lines = self.lines(disable_token_authorization=True, inference_address="http://0.0.0.0:8080")
        loud = [text for level, text in lines if level is LogLevel.critical]
        self.assertEqual(len(loud), 1)
        self.assertIn("http://0.0.0.0:8080", loud[0])

    def test_shared_address(self) -> None:
        """Where all share an address there is one listener, which is announced for each of them."""
        texts = [
            text
            for _level, text in self.lines(inference_address=ONE, management_address=ONE, metrics_address=ONE)
            if "bind to" in text
        ]
        self.assertEqual(len(texts), 3)


class WholeServerTests(SynchronousTestCase):
    """Tests which need requests."""

    def test_metrics_of_tokens(self) -> None:
        """The seconds that are left of each key are among the metrics, and follow the time."""
        server = MemoryServer()
        self.addCleanup(server.close)
        server.advance(600)
        lines = server.request("GET", "/metrics?name[]=ts_token_seconds_left").body.decode().splitlines()
        for kind in ("management", "inference"):
            self.assertIn(f'ts_token_seconds_left{{kind="{kind}",}} 3000.0', lines)
        self.assertFalse([line for line in lines if "API" in line])

    def test_secrets(self) -> None:
        """A key that was replaced, and those of a server that stops, stay out of the lines that were waiting."""
        server = MemoryServer()
        before = [token.secret for token in server.keys]
        server.request("GET", "/token?type=inference", server.key(TokenKind.API))
        after = [token.secret for token in server.keys]
        self.assertNotEqual(before, after)
        self.assertLessEqual({*before, *after}, set(server.server.secrets))
        server.close()
        self.assertLessEqual({*before, *after}, set(server.server.secrets))

    def test_registering_while_it_stops(self) -> None:
        """Who registers a model while the server stops is answered, and nothing of the model stays."""
        server = MemoryServer()
        self.addCleanup(server.close)
        server.add_model("m", {})
        server.provider.load_delay = None
        registering = server.send("POST", "/models?url=m", server.key(TokenKind.MANAGEMENT))
        stopping = server.server.stopService()
        self.assertEqual(server.answered(registering).status, 500)
        server.advance(10)
        self.successResultOf(stopping)
        self.assertEqual(list(server.directory.glob("twisted_serve-*")), [])

    def test_failed_start(self) -> None:
        """A server in memory which cannot start leaves no directory."""
        place = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, place)
        self.patch(tempfile, "tempdir", str(place))
        self.assertRaises(ValueError, MemoryServer, {"cors_allowed_origin": "\u2603"})
        self.assertEqual(list(place.iterdir()), [])

    def test_provider_of_processes(self) -> None:
        """Unless told otherwise, workers are processes and threads are the reactor's."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        reactor: Any = MemoryServeReactor()
        options = ServerOptions(
            model_store=directory,
            token_key_file=directory / "k",
            temp_directory=directory,
            disable_system_metrics=True,
        )
        server = ModelServer(reactor, options)
        with patch.object(reactor, "getThreadPool", lambda: None, create=True):
            server.startService()
        self.successResultOf(succeed(None))
        self.successResultOf(server.stopService())
        self.assertEqual(list(directory.iterdir()), [])

    def test_finishes_what_it_has(self) -> None:
        """A server that stops finishes all that it has let in: streams, and what waits for a worker."""
        memory = MemoryServer(models={"m": {}})
        self.addCleanup(memory.close)
        [worker] = memory.provider.workers
        worker.holding = True
        request = (
            b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
            b"Authorization: Bearer " + memory.key(TokenKind.INFERENCE).encode() + b"\r\n\r\nx"
        )
        stream, waiting = memory.connect(), memory.connect()
        stream.send(request)
        waiting.send(request)
        worker.chunk(Item(worker.batches[-1][0].request_id, 200, "", {}, b"part"))
        stopped = memory.server.stopService()
        worker.chunk(Item(worker.batches[-1][0].request_id, 200, "", {}, b"more"))
        worker.answer()
        self.assertTrue(stream.received.endswith(b"4\r\npart\r\n4\r\nmore\r\n1\r\nx\r\n0\r\n\r\n"), stream.received)
        self.assertNoResult(stopped)
        worker.answer()
        self.assertTrue(waiting.received.startswith(b"HTTP/1.1 200 "), waiting.received)
        memory.flush()
        self.successResultOf(stopped)

    def test_hurry(self) -> None:
        """A server that is in a hurry gives up what is being answered; before and after that it does nothing."""
        memory = MemoryServer(models={"m": {}})
        self.addCleanup(memory.close)
        memory.server.hurry()
        [worker] = memory.provider.workers
        worker.holding = True
        connection = memory.connect()
        connection.send(
            b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
            b"Authorization: Bearer " + memory.key(TokenKind.INFERENCE).encode() + b"\r\n\r\nx"
        )
        stopped = memory.server.stopService()
        self.assertNoResult(stopped)
        self.assertTrue(worker.alive)
        memory.server.hurry()
        self.successResultOf(stopped)
        self.assertFalse(worker.alive)
        self.assertFalse(connection.open)
        memory.server.hurry()

    def test_cancelled_stop(self) -> None:
        """A stop that takes too long and is cancelled kills the workers, and leaves no file."""
        memory = MemoryServer(models={"m": {}})
        self.addCleanup(memory.close)
        [worker] = memory.provider.workers
        worker.holding = True
        connection = memory.connect()
        connection.send(
            b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
            b"Authorization: Bearer " + memory.key(TokenKind.INFERENCE).encode() + b"\r\n\r\nx"
        )
        stopped = memory.server.stopService()
        self.assertTrue(worker.alive)
        stopped.cancel()
        self.failureResultOf(stopped, CancelledError)
        self.assertFalse(worker.alive)
        self.assertFalse(memory.key_file.exists())
        self.assertEqual(list(memory.directory.glob("twisted_serve-*")), [])

    def test_bad_number_for_a_model(self) -> None:
        """A setting of a model that is no number keeps the server from starting, and says which; no file stays."""
        for key in ("batchSize", "minWorkers", "maxWorkers", "responseTimeout"):
            with self.assertRaisesRegex(ValueError, f"models has 'x' for {key}.*version 1.0 of model m"):
                MemoryServer({"models": {"m": {"1.0": {key: "x"}}}})

    def test_defect_in_one_model(self) -> None:
        """A defect which one start-up model meets is logged; those after it are loaded, and the server is ready."""
        real = ModelStore.open

        async def broken(store: ModelStore, url: str, source: Source) -> ModelArchive:
            if url == "bad":
                raise ZeroDivisionError
            return await real(store, url, source)

        with patch.object(ModelStore, "open", broken):
            memory = MemoryServer(models={"bad": {}, "good": {}})
        self.addCleanup(memory.close)
        outcome = self.successResultOf(memory.server.ready)
        self.assertEqual(outcome.problem(), "1 of 2 start-up models failed: bad: ZeroDivisionError")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        answer = memory.request("POST", "/predictions/good", memory.key(TokenKind.INFERENCE), body=b"x")
        self.assertEqual(answer.body, b"x")
