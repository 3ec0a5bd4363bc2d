# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.service`: a server with models and requests, in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, succeed
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.locating import Source
from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.options import ServerOptions
from twisted_serve.service import ModelServer
from twisted_serve.testing.server import MemoryServer, MemoryServeReactor
from twisted_serve.wire.messages import Item


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
