# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.subcommands.top`: a server in memory is watched through its real routes."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from email.message import Message
from http.client import HTTPMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from attrs import evolve
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.subcommands.client import Answer
from twisted_serve.subcommands.outcomes import NoServer, NotAuthorized
from twisted_serve.subcommands.output import Output
from twisted_serve.subcommands.session import Choice, Session
from twisted_serve.subcommands.top.command import _live
from twisted_serve.subcommands.top.table import summary, table_of, workers
from twisted_serve.subcommands.top.watching import DESCRIBED_AT_ONCE, DESCRIBED_EVERY, Watcher
from twisted_serve.testing.server import MemoryServer


class MemorySession(Session):
    """
    A session with a server in memory.

    :ivar asked: The paths that were asked for, without their queries.
    :ivar gone: Whether the server has gone.
    """

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(Choice(url="http://127.0.0.1:8080"), Output())
        self.memory = server
        self.asked: list[str] = []
        self.gone = False
        self.manages = True

    def call(self, role: str, method: str, target: str, **rest: Any) -> Answer:
        """Ask the server in memory."""
        self.asked.append(target.partition("?")[0])
        if self.gone:
            raise NoServer("http://127.0.0.1:8080 cannot be reached.")
        key = self.memory.key(TokenKind.MANAGEMENT if self.manages else TokenKind.INFERENCE)
        got = self.memory.request(method, quote(target, safe="/?&=%[]"), key)
        headers = HTTPMessage()
        for name, value in got.headers.items():
            Message.add_header(headers, name, value)
        answer = Answer(got.status, headers, got.body)
        if (refusal := answer.refusal()) is not None:
            raise refusal
        return answer


class WatchingTests(SynchronousTestCase):
    """Tests for watching a server."""

    def watch(self, *models: str) -> tuple[MemoryServer, MemorySession, Watcher]:
        server = MemoryServer(models={name: {} for name in models})
        self.addCleanup(server.close)
        session = MemorySession(server)
        return server, session, Watcher(session, server.clock.seconds)

    def predict(self, server: MemoryServer, model: str) -> None:
        server.request("POST", f"/predictions/{model}", server.key(TokenKind.INFERENCE), body=b"x")

    def test_view(self) -> None:
        """The view has each version with its workers, its rate and its memory, and the keys' remaining time."""
        server, _session, watcher = self.watch("a", "b")
        first = watcher.look()
        self.assertEqual(
            [(row.name, row.version, row.rate) for row in first.rows], [("a", "1.0", None), ("b", "1.0", None)]
        )
        for _ in range(6):
            self.predict(server, "a")
        server.advance(2.0)
        view = watcher.look()
        self.assertEqual(
            [(row.rate, row.errors, workers(row)) for row in view.rows], [(3.0, 0.0, "1/1"), (0.0, 0.0, "1/1")]
        )
        self.assertIsNotNone(view.rows[0].p99)
        self.assertIn("inference key expires in 59 m 58 s", list(summary(view)))

    def test_bounded(self) -> None:
        """A refresh describes a few models at most, and each model every few seconds; metrics are asked for by name."""
        models = [f"m{number:02}" for number in range(DESCRIBED_AT_ONCE + 3)]
        server, session, watcher = self.watch(*models)
        for expected in (models[:DESCRIBED_AT_ONCE], models[DESCRIBED_AT_ONCE:], [], []):
            session.asked.clear()
            watcher.look()
            self.assertEqual(session.asked, ["/metrics", *(f"/models/{name}/all" for name in expected)])
            server.advance(1.0)
        server.advance(DESCRIBED_EVERY - 4.0)
        session.asked.clear()
        watcher.look()
        self.assertEqual(session.asked[1:], [f"/models/{name}/all" for name in models[:DESCRIBED_AT_ONCE]])

    def test_slow_looks(self) -> None:
        """Looking takes a tenth of the time at most."""
        server, session, watcher = self.watch("a")
        watcher.look()
        self.assertEqual(watcher.pause(1.0), 1.0)

        class Slow(MemorySession):
            def call(self, role: str, method: str, target: str, **rest: Any) -> Answer:
                server.advance(0.25)
                return super().call(role, method, target, **rest)

        slow = Watcher(Slow(server), server.clock.seconds)
        slow.look()
        self.assertEqual((slow.took, slow.pause(1.0), slow.pause(10.0)), (0.5, 4.5, 9.5))
        self.assertEqual(len(session.asked), 2)

    def test_no_management(self) -> None:
        """Without a key for descriptions the rest is shown, and why."""
        _server, session, watcher = self.watch("a", "b")
        session.manages = False
        [row, _] = watcher.look().rows
        self.assertEqual((row.ready, row.memory, workers(row)), (1, None, "1"))
        self.assertIsNotNone(watcher.problem)
        self.assertEqual(len(session.asked), 2)

    def test_metrics_token(self) -> None:
        """A server whose metrics need another token is an error that says so."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        token = Path(directory.name) / "token"
        token.write_text("secretsecret")
        server = MemoryServer({"metrics_token_file": token})
        self.addCleanup(server.close)
        self.assertRaises(NotAuthorized, Watcher(MemorySession(server), server.clock.seconds).look)

    def live(self, *steps: Callable[[], object]) -> tuple[int, str]:
        """Show the table for these steps, one at each interval, then interrupt; return the status and the output."""
        server, _session, watcher = self.server_session_watcher
        left = list(steps)

        def sleep(seconds: float) -> None:
            if not left:
                raise KeyboardInterrupt
            server.advance(seconds)
            left.pop(0)()

        out = io.StringIO()
        with redirect_stdout(out):
            status = _live(watcher, watcher.look(), 1.0, sleep)
        return status, out.getvalue()

    def test_gone(self) -> None:
        """A server that goes away is waited for: 3 if it has not come back, and rates begin anew if it has."""
        self.server_session_watcher = _server, session, _watcher = self.watch("a")

        def go() -> None:
            session.gone = True

        def come() -> None:
            session.gone = False

        status, shown = self.live(go)
        self.assertEqual(status, 3)
        self.assertIn("cannot be reached. Waiting for it; Ctrl-C ends.", " ".join(shown.split()))
        come()
        self.assertEqual(self.live(lambda: None, go, come)[0], 0)
        self.assertEqual(self.live(lambda: None)[0], 0)

    def test_hostile_names(self) -> None:
        """A name that would control the terminal is shown escaped, and markup as it is."""
        _server, _session, watcher = self.watch("a")
        view = watcher.look()
        [row] = view.rows
        hostile = evolve(view, rows=(evolve(row, name="\x1b[31m[red]x[/red]\n"),))
        out = io.StringIO()
        Console(file=out, width=200).print(table_of(hostile, ["\x1b]0;title\x07"]))
        self.assertNotIn("\x1b", out.getvalue())
        self.assertIn("[red]x[/red]", out.getvalue())
