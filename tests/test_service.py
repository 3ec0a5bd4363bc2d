# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.service``: the life of a server, from its start to its end, in memory.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel, capturedLogs, formatEvent

import twisted_serve.assembly.dependencies
import twisted_serve.assembly.server
from tests.service_case import ServiceTestCase
from twisted_serve.auth.key_file import KeyFileInUse
from twisted_serve.config.options import ServerOptions
from twisted_serve.planes.startup import StartupOutcome
from twisted_serve.system.heap import INTERVAL
from twisted_serve.testing.server import Role

ONE = "http://127.0.0.1:8080"


class LifeTests(ServiceTestCase):
    """Tests for starting and stopping."""

    def test_start_and_stop(self) -> None:
        """A server that was started has its files, its listeners and its keys; when it was stopped, none of them."""
        server = self.server()
        self.assertIsNone(server.keys)
        self.assertRaises(KeyError, server.site_of, Role.INFERENCE)
        server.startService()
        self.assertEqual(self.reactor.listening, {8080, 8081, 8082, 7070, 7071})
        self.assertEqual(set(server.addresses), set(Role))
        self.assertEqual(set(server.grpc_addresses), {Role.INFERENCE, Role.MANAGEMENT})
        self.assertEqual(self.successResultOf(server.ready), StartupOutcome())
        assert server.keys is not None
        self.assertIn(server.keys.api.secret, (self.directory / "key_file.json").read_text())
        self.stop(server)
        self.assertIsNone(server.keys)
        self.assertEqual((server.addresses, server.grpc_addresses), ({}, {}))
        self.assertRaises(KeyError, server.site_of, Role.INFERENCE)
        self.assertRaises(KeyError, server.grpc_factory, Role.INFERENCE)

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

    def test_grpc_port_in_use(self) -> None:
        """A default port of gRPC that is taken stays closed, with a warning; one that was asked for is an error."""
        self.reactor.taken = {7070}
        server = self.server()
        with capturedLogs() as logs:
            server.startService()
        [line] = [formatEvent(each) for each in logs if each["log_level"] is LogLevel.warn]
        self.assertIn("http://127.0.0.1:7070 stays closed", line)
        self.assertIn("grpc_inference_address", line)
        self.assertEqual(self.reactor.listening, {8080, 8081, 8082, 7071})
        self.assertEqual(set(server.grpc_addresses), {Role.MANAGEMENT})
        self.stop(server)
        for asked in (
            {"grpc_inference_port": 7070},
            {"enable_grpc": True},
            {"grpc_inference_address": "localhost"},
        ):
            self.assertFails(CannotListenError, **asked)
        self.reactor.taken = {7071}
        self.assertFails(CannotListenError, grpc_management_port=7071)

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
        self.assertEqual(len(warnings), 4)
        warnings = [
            text
            for level, text in self.lines(disable_token_authorization=True, enable_grpc=False)
            if level is LogLevel.warn
        ]
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
        self.assertEqual(len(texts), 5)
