# SPDX-License-Identifier: Apache-2.0
"""
Hold the tokens of a running server, and announce where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_serve.assembly.dependencies import Dependencies
from twisted_serve.auth.kept import read_kept
from twisted_serve.auth.key_file import KeyFile, instant
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.tokens import KeySet, Token
from twisted_serve.config.addresses import is_loopback
from twisted_serve.config.options import ServerOptions
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.interfaces import IAuthorizer
from twisted_serve.listening.ports import Listener
from twisted_serve.listening.roles import Role
from twisted_serve.logs import TOKEN_BLOCK, TOKEN_DISABLED, TOKEN_ENABLED
from twisted_serve.planes.access import Access, TokenAccess
from twisted_serve.planes.live_keys import LiveKeys

_log = Logger("twisted_serve.server")

#: Whether the key file is left for the next start, by the values of ``token_on_restart``.
KEPT = {"new": False, "keep": True}


def make_keyring(
    options: ServerOptions, dependencies: Dependencies, key_file: KeyFile, defer_to_thread: DeferToThread
) -> Keyring:
    """
    Make the keyring of a server, and save its keys.

    :raise OSError: when the key file cannot be written, or belongs to another running server.
    """
    now, lifetime = dependencies.now(), timedelta(minutes=options.token_expiration_min)
    # A function of the application need not know what no option asks for.
    asked: dict[str, Any] = {}
    if options.token_overlap_sec:
        asked["overlap"] = timedelta(seconds=options.token_overlap_sec)
    if KEPT[options.token_on_restart] and (found := _kept_tokens(key_file.path, now, lifetime)):
        asked["found"] = found
    return dependencies.keyring(
        key_file.save, dependencies.entropy, lifetime, now, dependencies.uptime, defer_to_thread, **asked
    )


def _kept_tokens(path: Path, now: datetime, lifetime: timedelta) -> tuple[Token, ...]:
    """
    Return the keys to go on with (``token_on_restart=keep``), and log which these are, or why there are none.

    :raise KeyFileInUse: when the key file belongs to another running server.
    """
    kept = read_kept(path, now, lifetime)
    if kept.reason is not None:
        _log.warn("AUDIT No keys are kept from {path}, and all are new: {reason}", path=str(path), reason=kept.reason)
    for token in kept.tokens:
        _log.info(
            "AUDIT The {kind} token (key {key_id}) is kept from {path}; it {end}",
            kind=token.kind.value,
            key_id=token.public_id,
            path=str(path),
            end="does not expire" if token.expires is None else f"expires at {instant(token.expires)}",
        )
    return kept.tokens


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

    def __init__(
        self,
        access: Access,
        key_file: KeyFile | None,
        metrics_token: MetricsToken | None,
        live_keys: LiveKeys | None = None,
    ) -> None:
        self.setName("keys")
        self._live_keys = live_keys
        self._access = access
        self._key_file = key_file
        self._metrics_token = metrics_token

    def stopService(self) -> None:
        """Remove the key file, or let it be as it is (``token_on_restart=keep``)."""
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
        """Write the key file again with the live tokens, and read the named keys again, in threads."""
        if isinstance(self._access, TokenAccess):
            Deferred.fromCoroutine(self._access.rotation.save_again())
        if self._live_keys is not None:
            self._live_keys.look(forced=True)
