# SPDX-License-Identifier: Apache-2.0
"""
A model server whose users are those of an htpasswd file, instead of keys.

Make the file by ``htpasswd -B -c users alice``, and run the program as ``python htpasswd.py MODEL_STORE users PORT
[MANAGER …]``; it needs the package ``bcrypt``. Users may predict; managers may also manage models and read metrics.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner
from zope.interface import implementer

from twisted_serve import Dependencies, ModelServer, ServerOptions, TokenKind
from twisted_serve.auth.cred import ModelRealm, PortalAuthorizer
from twisted_serve.logs import console

HASH = re.compile(rb"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}")

# In bytes: bcrypt hashes no more of a password.
LONGEST = 72

# How many passwords are hashed at a time; more clients wait, so that they take no threads from the server.
AT_ONCE = 2


@implementer(ICredentialsChecker)
class HtpasswdChecker:
    """Checks passwords against lines ``user:hash`` of a file that ``htpasswd -B`` has made."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._turns = DeferredSemaphore(AT_ONCE)
        self._hashes: dict[bytes, bytes] = {}
        cost = 4
        for number, line in enumerate(lines, 1):
            name, _, hashed = line.strip().partition(b":")
            if not line.strip() or line.startswith(b"#"):
                continue
            found = HASH.fullmatch(hashed)
            if not name or found is None:
                raise ValueError(f"line {number} is not a user with a bcrypt hash, as htpasswd -B makes it")
            self._hashes[name] = hashed
            cost = max(cost, int(found["cost"]))
        # Checked for a user who does not exist, so that the answer takes as long as for one who does.
        self._other = bcrypt.hashpw(b"", bcrypt.gensalt(cost))

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Return the name of the user whose password is right; hashing runs in a thread."""
        return Deferred.fromCoroutine(self._checked(credentials))

    async def _checked(self, credentials: IUsernamePassword) -> bytes | tuple[()]:
        hashed = self._hashes.get(credentials.username)
        password = credentials.password[:LONGEST]
        right = await self._turns.run(deferToThread, bcrypt.checkpw, password, hashed or self._other)
        if hashed is None or not right or len(credentials.password) > LONGEST:
            raise UnauthorizedLogin()
        return credentials.username


def make_server(model_store: str, users: str, port: int, managers: Iterable[str]) -> ModelServer:
    """Return a server for these users, with all its APIs at one port."""
    address = f"http://127.0.0.1:{port}"
    portal = Portal(
        ModelRealm({name: {TokenKind.INFERENCE, TokenKind.MANAGEMENT} for name in managers}),
        [HtpasswdChecker(Path(users).read_bytes().splitlines())],
    )
    return ModelServer(
        reactor,
        ServerOptions(
            model_store=model_store,
            load_models="all",
            default_workers_per_model=1,
            inference_address=address,
            management_address=address,
            metrics_address=address,
        ),
        Dependencies(authorizer=PortalAuthorizer(portal, realm="models")),
    )


if __name__ == "__main__":
    server = make_server(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    globalLogBeginner.beginLoggingTo([console(sys.stdout, list)])
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    reactor.run()
