# SPDX-License-Identifier: Apache-2.0
"""The settings of authorization, and what is recorded of refusals, against the whole server in memory."""

from __future__ import annotations

from typing import Any

from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_serve.auth.audit import LINES_PER_PERIOD, PERIOD
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role

API, INFERENCE = TokenKind.API, TokenKind.INFERENCE


class OptionTests(SynchronousTestCase):
    """Tests for what operators can choose."""

    def server(self, **options: Any) -> MemoryServer:
        server = MemoryServer(options, models={"m": {}})
        self.addCleanup(server.close)
        return server

    def test_exempt_ping(self) -> None:
        """``token_exempt_ping`` opens ``/ping``, exactly that, and nothing else."""
        server = self.server(token_exempt_ping=True)
        self.assertEqual(server.request("GET", "/ping").status, 200)
        self.assertEqual(server.request("GET", "/ping", "wrong").status, 200)
        described = server.request("OPTIONS", "/", role=Role.INFERENCE).json["paths"]
        self.assertNotIn("security", described["/ping"]["get"])
        self.assertIn("security", described["/predictions/{model_name}"]["post"])
        for path in ("/ping/x", "/pingx", "/PING", "/predictions/m", "/ping/../predictions/m"):
            self.assertEqual(server.request("POST", path).status, 400, path)
        self.assertEqual(server.request("GET", "/ping", role=Role.MANAGEMENT).status, 400)

    def test_401(self) -> None:
        """``token_refusal_status=401`` answers as RFC 6750 has it."""
        server = self.server(token_refusal_status=401)
        missing = server.request("GET", "/ping")
        self.assertEqual((missing.status, missing.json["code"]), (401, 401))
        self.assertEqual(missing.headers["www-authenticate"], 'Bearer realm="twisted_serve"')
        wrong = server.request("POST", "/models", "wrong", body=b"{}")
        self.assertEqual(wrong.status, 401)
        self.assertEqual(wrong.headers["www-authenticate"], 'Bearer realm="twisted_serve", error="invalid_token"')

    def test_disabled(self) -> None:
        """Without token authorization everything answers, there is no key file, and no ``/token``."""
        server = self.server(disable_token_authorization=True)
        self.assertFalse(server.key_file.exists())
        self.assertEqual(server.request("GET", "/ping").status, 200)
        self.assertEqual(server.request("POST", "/predictions/m", body=b"x").body, b"x")
        self.assertEqual(server.request("GET", "/models").status, 200)
        answer = server.request("GET", "/token?type=management")
        self.assertEqual((answer.status, answer.json["type"]), (404, "ResourceNotFoundException"))

    def test_cors(self) -> None:
        """The configured CORS headers are on every answer, refusals included."""
        server = self.server(cors_allowed_origin="https://a.example", cors_allowed_methods="GET, POST")
        for answer in (
            server.request("GET", "/ping"),
            server.request("POST", "/ping", body=b"early"),
            server.request("GET", "/livez"),
            server.request("POST", "/predictions/m", server.key(INFERENCE), body=b"x"),
        ):
            self.assertEqual(answer.headers["access-control-allow-origin"], "https://a.example")
            self.assertEqual(answer.headers["access-control-allow-methods"], "GET, POST")
            self.assertNotIn("access-control-allow-headers", answer.headers)

    def test_handlers_do_not_see_keys(self) -> None:
        """A handler sees the client's headers but not its key; with tokens off, it sees all of them."""
        server = self.server()
        server.request("POST", "/predictions/m", server.key(INFERENCE), {"X-Mine": "1"}, b"x")
        [[job]] = server.provider.workers[0].batches
        self.assertEqual(job.headers.get("X-Mine"), "1")
        self.assertNotIn(server.key(INFERENCE), str(job))
        server = self.server(disable_token_authorization=True)
        server.request("POST", "/predictions/m", headers={"Authorization": "Basic mine"}, body=b"x")
        [[job]] = server.provider.workers[0].batches
        self.assertEqual({k.lower(): v for k, v in job.headers.items()}["authorization"], "Basic mine")


class JournalTests(SynchronousTestCase):
    """Tests for what is written down and counted."""

    def setUp(self) -> None:
        self.server = MemoryServer(models={"m": {}})
        self.addCleanup(self.server.close)
        self.lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: Any) -> None:
            self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def metric(self, sample: str) -> float:
        text = self.server.request("GET", "/metrics").body.decode()
        for line in text.splitlines():
            if line.startswith(sample + " "):
                return float(line.split()[-1])
        return 0.0

    def matching(self, *words: str) -> list[str]:
        return [line for line in self.lines if all(word in line for word in words)]

    def test_refused_management_call(self) -> None:
        """A refused management call has an audit line with the public id of the key that was presented."""
        token = self.server.keys.inference
        self.server.request("DELETE", "/models/m", token.secret)
        [line] = self.matching("AUDIT")
        for word in ("DELETE", "/models/m", "wrong kind", token.public_id):
            self.assertIn(word, line)
        self.assertEqual(self.metric('ts_token_refused_total{kind="management",reason="wrong_kind",}'), 1)

    def test_rotation(self) -> None:
        """A rotation has an audit line with both public ids, and is counted."""
        old = self.server.keys.inference
        self.server.request("POST", "/token?type=inference", self.server.key(API))
        [line] = self.matching("AUDIT")
        self.assertIn(old.public_id, line)
        self.assertIn(self.server.keys.inference.public_id, line)
        self.assertEqual(self.metric('ts_token_rotations_total{kind="inference",}'), 1)

    def test_no_key_in_any_line(self) -> None:
        """No line of the log holds a key, old or new, however requests present it."""
        secrets = {token.secret for token in self.server.keys}
        for kind in TokenKind:
            self.server.request("GET", "/models", self.server.key(kind))
            self.server.request("GET", "/ping", self.server.key(kind))
            self.server.request("POST", "/token?type=management", self.server.key(kind))
        secrets |= {token.secret for token in self.server.keys}
        self.server.advance(3 * 3600)
        self.assertGreater(len(self.lines), 10)
        for secret in secrets:
            self.assertEqual(self.matching(secret), [])

    def test_bounded_lines(self) -> None:
        """Somebody who guesses fills the counter, not the log; the rest is summed up; a right key still opens."""
        for _ in range(200):
            self.server.request("GET", "/ping", "guess")
        self.assertEqual(len(self.matching("Refused")), LINES_PER_PERIOD)
        self.assertEqual(self.metric('ts_token_refused_total{kind="inference",reason="unknown",}'), 200)
        self.assertEqual(self.server.request("GET", "/ping", self.server.key(INFERENCE)).status, 200)
        self.server.advance(PERIOD)
        self.server.request("GET", "/ping", "guess")
        self.assertEqual(len(self.matching("Refused")), LINES_PER_PERIOD + 1)
        self.assertEqual(len(self.matching(str(200 - LINES_PER_PERIOD), "more requests")), 1)

    def test_expiry_is_said(self) -> None:
        """The log warns before a key expires and says so when it has, once each; the gauge tells the seconds."""
        self.assertEqual(self.metric('ts_token_seconds_left{kind="inference",}'), 3600)
        for _ in range(60):
            self.server.advance(60)
        self.assertEqual(len(self.matching("inference", "expires in 300 s")), 1)
        self.assertEqual(len(self.matching("inference token", "has expired")), 1)
        self.assertEqual(len(self.matching("management token", "has expired")), 1)
        self.assertEqual(self.metric('ts_token_seconds_left{kind="inference",}'), 0)
