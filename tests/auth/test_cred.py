# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.auth.cred`."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import LoginDenied, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_serve.auth.cred import IModelUser, ModelRealm, ModelUser, PortalAuthorizer, ScopesOf, basic_credentials
from twisted_serve.interfaces import AccessRequest, IAuthorizer, TokenKind
from twisted_serve.testing.server import Answer, MemoryServer

EVERYTHING = frozenset(TokenKind)


def basic(name: bytes, password: bytes) -> bytes:
    """Return the value of an ``Authorization`` header."""
    return b"Basic " + b64encode(name + b":" + password)


class CredentialsTests(SynchronousTestCase):
    """Basic credentials."""

    @given(st.binary(min_size=1, max_size=40).filter(lambda name: b":" not in name), st.binary(max_size=40))
    def test_sent(self, name: bytes, password: bytes) -> None:
        """What a client sends is found; the password may have colons."""
        found = basic_credentials([basic(name, password)])
        assert found is not None
        self.assertEqual((found.username, found.password), (name, password))

    def test_not_sent(self) -> None:
        """There are none in anything else."""
        good = basic(b"alice", b"secret")
        for headers in (
            [],
            [b""],
            [b"Basic"],
            [b"Basic "],
            [good, good],
            [good, b"Bearer x"],
            [good.replace(b"Basic", b"Bearer")],
            [good + b" x"],
            [good + b","],
            [b"Basic " + b64encode(b"alice")],
            [b"Basic " + b64encode(b":secret")],
            [b"Basic " + b64encode(b"alice:" + b"x" * 1024)],
            [b"Basic \xff\xfe"],
        ):
            self.assertIsNone(basic_credentials(headers), headers)
        self.assertIsNotNone(basic_credentials([good.replace(b"Basic ", b"bASIC   ")]))


class PortalTests(SynchronousTestCase):
    """A server with the users of a portal."""

    def serve(self, scopes: ScopesOf | None = None, realm: Any = None) -> MemoryServer:
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret", bob=b"other secret")
        portal = Portal(ModelRealm(scopes) if realm is None else realm, [checker, AllowAnonymousAccess()])
        authorizer = PortalAuthorizer(portal, "models")
        verifyObject(IAuthorizer, authorizer)
        server = MemoryServer(models={"m": {}}, dependencies={"authorizer": authorizer})
        self.addCleanup(server.close)
        return server

    def ask(self, server: MemoryServer, path: str, name: bytes = b"alice", password: bytes = b"secret") -> Answer:
        method = "POST" if path.startswith("/pred") else "GET"
        return server.request(method, path, headers={"Authorization": basic(name, password)}, body=b"1")

    def test_inference_only(self) -> None:
        """By default a user may predict, and nothing else."""
        server = self.serve()
        self.assertEqual(self.ask(server, "/predictions/m").status, 200)
        for path in ("/models", "/metrics", "/models/m"):
            self.assertEqual(self.ask(server, path).status, 403)
        self.assertEqual(self.ask(server, "/token?type=management").status, 403)
        [[[job]]] = [worker.batches for worker in server.provider.workers]
        self.assertEqual(job.headers["principal"], "alice")

    def test_scopes(self) -> None:
        """A mapping or a function gives scopes; others in a mapping keep the default."""
        for scopes in (
            {"alice": {TokenKind.MANAGEMENT}},
            lambda name: {TokenKind.MANAGEMENT} if name == "alice" else {TokenKind.INFERENCE},
        ):
            server = self.serve(scopes)
            self.assertEqual(self.ask(server, "/models").status, 200)
            self.assertEqual(self.ask(server, "/predictions/m").status, 403)
            self.assertEqual(self.ask(server, "/models", b"bob", b"other secret").status, 403)
            self.assertEqual(self.ask(server, "/predictions/m", b"bob", b"other secret").status, 200)

    def test_refused(self) -> None:
        """Others get the challenge, the same for an unknown user as for a wrong password."""
        server = self.serve(lambda _name: EVERYTHING)
        answers = [
            self.ask(server, "/predictions/m", b"alice", b"wrong"),
            self.ask(server, "/predictions/m", b"mallory", b"secret"),
            server.request("GET", "/models"),
            server.request("GET", "/models", headers={"Authorization": ["Basic", basic(b"alice", b"secret")]}),
        ]
        for answer in answers:
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer.headers["www-authenticate"], 'Basic realm="models", charset="UTF-8"')
            self.assertEqual(answer.body, answers[0].body)

    def test_own_realm(self) -> None:
        """A realm of the application decides for each request; each session is ended."""
        ended = []

        @implementer(IModelUser)
        class Reader:
            name = "reader"

            def may(self, asked: AccessRequest) -> Any:
                # Only `True` admits.
                return True if asked.segments == ("models", "m") else "no"

        @implementer(IRealm)
        class Realm:
            def requestAvatar(self, avatarId: bytes | tuple[()], mind: object, *interfaces: object) -> Deferred[Any]:
                if avatarId == b"bob":
                    raise LoginDenied()
                return succeed((IModelUser, Reader(), lambda: ended.append(avatarId)))

        server = self.serve(realm=Realm())
        self.assertEqual(self.ask(server, "/models/m").status, 200)
        self.assertEqual(self.ask(server, "/models").status, 403)
        self.assertEqual(self.ask(server, "/models/m", b"bob", b"other secret").status, 403)
        self.assertEqual(ended, [b"alice", b"alice"])

    def test_broken_portal(self) -> None:
        """A portal that cannot check passwords is an error of the server, not of the client."""
        authorizer = PortalAuthorizer(Portal(ModelRealm(), [AllowAnonymousAccess()]))
        server = MemoryServer(dependencies={"authorizer": authorizer})
        self.addCleanup(server.close)
        self.assertEqual(self.ask(server, "/ping").status, 500)
        self.assertEqual(len(self.flushLoggedErrors(UnhandledCredentials)), 1)

    def test_realm_name(self) -> None:
        """The realm's name is sent in a header."""
        for name in ('a"b', "a\r\nb", "", "é", "a\\"):
            with self.assertRaises(ValueError):
                PortalAuthorizer(Portal(ModelRealm()), name)


class RealmTests(SynchronousTestCase):
    """The realm."""

    def test_interfaces(self) -> None:
        """It has users of models only, and none without a name."""
        verifyObject(IRealm, ModelRealm())
        verifyObject(IModelUser, ModelUser("alice"))
        with self.assertRaises(NotImplementedError):
            ModelRealm().requestAvatar(b"alice", None, IRealm)
        anonymous: tuple[tuple[()] | bytes, ...] = ((), b"", b"\xff")
        for name in anonymous:
            with self.assertRaises(LoginDenied):
                ModelRealm().requestAvatar(name, None, IModelUser)

    def test_names(self) -> None:
        """Names are UTF-8."""
        self.assertEqual(ModelRealm().requestAvatar("Ålice".encode(), None, IModelUser)[1].name, "Ålice")
