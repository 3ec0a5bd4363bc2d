# SPDX-License-Identifier: Apache-2.0
"""
Give a server in memory dependencies of the test's own, without patching anything.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_serve.auth.keyring import Granted, Keyring, Refused, Replacement
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces.authorization import AccessRequest, IAuthorizer, Principal, Refusal, Verdict
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.server import EPOCH, MemoryServer, MemoryServeReactor, NoAnswerYet
from twisted_serve.wire.messages import Job


class CountingKeyring(Keyring):
    """Records which kinds of keys requests needed, and which were replaced."""

    checked: list[TokenKind]
    replaced: list[TokenKind]

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        self.checked.append(kind)
        return super().check(kind, presented, now)

    def rotate(self, kind: TokenKind, now: datetime) -> Deferred[Replacement]:
        self.replaced.append(kind)
        return super().rotate(kind, now)


class ForgetfulKeyring(Keyring):
    """Keeps a replaced key alive: a defect."""

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        granted = Granted("old") if presented in self._replaced else None
        return granted or super().check(kind, presented, now)


class OddKeyring(Keyring):
    """Answers what no keyring should: a defect."""

    answer: Any = None

    def check(self, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


class ForgetfulMachine(TokenMachine):
    """The server with the defective keyring."""

    def make_server(self) -> MemoryServer:
        return MemoryServer(self.options, dependencies={"keyring": ForgetfulKeyring.create})


def fail(jobs: list[Job]) -> Exception:
    """Fail each batch."""
    return WorkerFailed(503, "Prediction failed")


@implementer(IAuthorizer)
class Doorman:
    """Admits after ten seconds those who say their name, and asks for ever about a name that nobody knows."""

    def __init__(self, clock: MemoryServeReactor) -> None:
        self.clock = clock

    def authorize(self, asked: AccessRequest) -> Deferred[Verdict] | Verdict:
        if not asked.authorization:
            return Refusal(403)
        name = asked.authorization[0].split()[1].decode()
        return Deferred() if name == "nobody-knows" else deferLater(self.clock, 10, Principal, name)


class SeamsTests(SynchronousTestCase):
    """Tests for dependencies of the test's own."""

    def directories_made_in(self) -> Path:
        """Return the new directory where servers put theirs."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.patch(tempfile, "tempdir", str(directory))
        return directory

    def test_keyring(self) -> None:
        """The server asks a keyring of one's own, which makes and saves the keys as usual."""
        keyrings: list[CountingKeyring] = []

        def make(*arguments: Any) -> Keyring:
            keyring = CountingKeyring.create(*arguments)
            assert isinstance(keyring, CountingKeyring)
            keyring.checked, keyring.replaced = [], []
            keyrings.append(keyring)
            return keyring

        with MemoryServer(dependencies={"keyring": make}) as server:
            key = server.keys.inference.secret
            self.assertIn(key, server.key_file.read_text())
            self.assertEqual(server.request("GET", "/ping", key).status, 200)
            server.request("POST", "/token?type=management", server.keys.api.secret)
            server.restart()
        first, second = keyrings
        self.assertIn(TokenKind.INFERENCE, first.checked)
        self.assertEqual((first.replaced, second.replaced), ([TokenKind.MANAGEMENT], []))
        self.assertNotEqual(first.keys, second.keys)

    def test_defective_keyring(self) -> None:
        """The machine finds the defect of a keyring of one's own."""
        machine = ForgetfulMachine()
        self.addCleanup(machine.teardown)
        machine.dead_keys_stay_dead()
        machine.rotate(TokenKind.INFERENCE, "POST")
        self.assertRaises(AssertionError, machine.dead_keys_stay_dead)

    def test_keyring_without_answer(self) -> None:
        """A keyring that raises, or does not answer with Granted, opens nothing; what was presented is not logged."""
        with MemoryServer(models={"m": {}}, dependencies={"keyring": OddKeyring.create}) as server:
            key = server.keys.inference.secret
            for answer in (None, True, "yes", key, RuntimeError(f"the vault does not know {key}")):
                OddKeyring.answer = answer
                for method, path in (("POST", "/predictions/m"), ("GET", "/models"), ("POST", "/token?type=inference")):
                    self.assertEqual(server.request(method, path, key, body=b"").status, 400)
            self.assertEqual((server.provider.batches, server.keys.inference.secret), ([], key))

    def test_log_of_failed_keyring(self) -> None:
        """What fails is logged, without what was presented."""
        with capturedLogs() as events, MemoryServer(dependencies={"keyring": OddKeyring.create}) as server:
            for answer in (True, RuntimeError("the vault does not know a-guessed-key")):
                OddKeyring.answer = answer
                server.request("GET", "/ping", "a-guessed-key")
        texts = [formatEvent(event) for event in events if event["log_namespace"] == "twisted_serve.auth"]
        self.assertIn("The keyring has answered bool, expected Granted or Refused: the request is refused", texts)
        self.assertTrue(any("RuntimeError: the vault does not know <redacted>" in text for text in texts), texts)
        self.assertNotIn("a-guessed-key", "".join(texts))

    def test_keyring_that_fails(self) -> None:
        """A keyring that cannot be made fails the start, which leaves nothing behind."""

        def make(*arguments: Any) -> Keyring:
            raise OSError("the vault is sealed")

        made = self.directories_made_in()
        with self.assertRaisesRegex(OSError, "the vault is sealed"):
            MemoryServer(dependencies={"keyring": make})
        self.assertEqual(list(made.iterdir()), [])

    def test_entropy(self) -> None:
        """The keys are made of one's own bytes; other seeds make other keys, and one seed the same ones."""
        numbers = count()
        with MemoryServer(dependencies={"entropy": lambda size: next(numbers).to_bytes(size, "big")}) as server:
            self.assertEqual(server.keys.management.secret, "A" * 32)
            self.assertEqual(server.keys.inference.secret, "A" * 31 + "B")
        made = []
        for seed in (0, 0, 1):
            with MemoryServer(seed=seed) as server:
                made.append(server.keys)
        self.assertEqual(made[0], made[1])
        self.assertNotEqual(made[0], made[2])

    def test_clock(self) -> None:
        """Servers on one clock, and the calls of an application, share the time."""
        clock = MemoryServeReactor()
        called: list[datetime] = []
        with MemoryServer(clock=clock) as blue, MemoryServer(clock=clock, seed=1) as green:
            clock.callLater(1800, lambda: called.append(green.now()))
            blue.advance(3600)
            self.assertEqual(called, [EPOCH + timedelta(minutes=30)])
            for server in (blue, green):
                self.assertEqual(server.request("GET", "/ping", server.keys.inference.secret).status, 400)

    def test_date(self) -> None:
        """The date may come from a function of one's own."""
        dates = [datetime(2030, 1, 1, tzinfo=timezone.utc)]
        with MemoryServer(dependencies={"now": lambda: dates[-1]}) as server:
            self.assertEqual(server.now(), dates[0])
            self.assertEqual(server.keys.inference.expires, dates[0] + timedelta(hours=1))
            key = server.keys.inference.secret
            dates.append(dates[0] + timedelta(hours=1, microseconds=-1))
            self.assertEqual(server.request("GET", "/ping", key).status, 200)
            dates.append(dates[0] + timedelta(hours=1))
            self.assertEqual(server.request("GET", "/ping", key).status, 400)

    def test_authorizer(self) -> None:
        """An authorizer of one's own decides, at once or later; it has time until a limit, and there are no keys."""
        clock = MemoryServeReactor()
        doorman = Doorman(clock)
        with MemoryServer(models={"m": {}}, clock=clock, dependencies={"authorizer": doorman}) as server:
            waiting = server.send("POST", "/predictions/m", headers={"Authorization": "Door alice"}, body=b"hello")
            server.advance(9.999)
            self.assertRaises(NoAnswerYet, server.answered, waiting)
            server.advance(0.001)
            self.assertEqual(server.answered(waiting).body, b"hello")
            self.assertEqual(server.request("GET", "/models").status, 403)
            late = server.send("GET", "/ping", headers={"Authorization": "Door nobody-knows"})
            server.advance(30)
            self.assertEqual(server.answered(late).status, 503)
            server.crash()
            self.assertEqual(server.request("GET", "/ping").status, 403)
            self.assertFalse(server.key_file.exists())
            self.assertRaises(LookupError, lambda: server.keys)

    def test_provider(self) -> None:
        """Workers may be set up before the server starts them: here one that cannot load."""
        clock = MemoryServeReactor()
        provider = FakeProvider(clock)
        provider.load_error = WorkerFailed(500, "no module named 'torch'")
        with MemoryServer(models={"m": {}}, clock=clock, provider=provider) as server:
            outcome = self.successResultOf(server.server.ready)
            self.assertEqual([failure.name for failure in outcome.failures], ["m"])

    def test_mistakes(self) -> None:
        """A mistake is named, and leaves no directory behind."""
        made = self.directories_made_in()
        clock = MemoryServeReactor()
        for wrong, message in (
            ({"dependencies": {"entrpy": bytes}}, "entrpy"),
            ({"options": {"token_expiration_minutes": 5}}, "token_expiration_minutes"),
            ({"options": {"token_expiration_min": -5}}, "token_expiration_min.*-5"),
            ({"provider": FakeProvider(clock)}, "another clock"),
            ({"provider": FakeProvider(clock), "clock": clock, "respond": fail}, "respond"),
        ):
            with self.assertRaisesRegex((TypeError, ValueError), message):
                MemoryServer(**wrong)
        self.assertEqual(list(made.iterdir()), [])
