# SPDX-License-Identifier: Apache-2.0
"""
Hold the tokens of a running server, and announce where they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_serve.auth.key_file import KeyFile
from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.tokens import KeySet
from twisted_serve.config.addresses import is_loopback
from twisted_serve.interfaces import IAuthorizer
from twisted_serve.listening.ports import Listener
from twisted_serve.listening.roles import Role
from twisted_serve.logs import TOKEN_BLOCK, TOKEN_DISABLED, TOKEN_ENABLED
from twisted_serve.planes.access import Access, TokenAccess

_log = Logger("twisted_serve.server")


class Announcement(Service):
    """
    The log lines about token authorization, before the listeners are bound.

    :param key_file: ``None`` when token authorization is disabled.
    :param authorizer: The application's authorizer, if it decides instead.
    """

    def __init__(self, key_file: KeyFile | None, authorizer: IAuthorizer | None, listeners: Sequence[Listener]) -> None:
        self.setName("announcement")
        self._key_file = key_file
        self._authorizer = authorizer
        self._listeners = listeners

    def privilegedStartService(self) -> None:
        """Log the path of the key file, the class of the authorizer, or a warning for each listener that is open."""
        super().privilegedStartService()
        if self._key_file is not None:
            for line in TOKEN_BLOCK:
                _log.info(line, path=str(self._key_file.path))
            _log.info(TOKEN_ENABLED)
            return
        if self._authorizer is not None:
            _log.info(
                "Requests are authorized by {name}, instead of keys",
                name=f"{type(self._authorizer).__module__}.{type(self._authorizer).__qualname__}",
            )
            return
        for listener in self._listeners:
            if listener.roles == Role.METRICS:
                continue
            _log.warn(TOKEN_DISABLED, address=str(listener.address))
            if not is_loopback(listener.address):
                _log.critical(
                    "DANGER: {address} is open to the network, and token authorization is disabled",
                    address=str(listener.address),
                )


class Keys(Service):
    """The tokens of a server; the key file is removed before the listeners are closed."""

    def __init__(self, access: Access, key_file: KeyFile | None, metrics_token: MetricsToken | None) -> None:
        self.setName("keys")
        self._access = access
        self._key_file = key_file
        self._metrics_token = metrics_token

    def stopService(self) -> None:
        """Remove the key file."""
        super().stopService()
        if self._key_file is not None:
            self._key_file.remove()

    @property
    def live(self) -> KeySet | None:
        """The live tokens; ``None`` when token authorization is disabled."""
        return self._access.keyring.keys if isinstance(self._access, TokenAccess) else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets that must not be in any log, those replaced lately too."""
        keys = self._access.keyring.secrets() if isinstance(self._access, TokenAccess) else ()
        metrics = () if self._metrics_token is None else (self._metrics_token.secret,)
        return (*(key.decode() for key in keys), *metrics)

    def save_again(self) -> None:
        """Write the key file again with the live tokens, in a thread."""
        if isinstance(self._access, TokenAccess):
            Deferred.fromCoroutine(self._access.rotation.save_again())
