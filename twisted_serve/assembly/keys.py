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
from twisted_serve.auth.given import OPTIONS, Source, sources_of
from twisted_serve.auth.given_watch import GivenWatch
from twisted_serve.auth.kept import read_kept
from twisted_serve.auth.key_file import KeyFile, instant
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.tokens import KeySet, Token, TokenKind
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
    options: ServerOptions,
    dependencies: Dependencies,
    key_file: KeyFile | None,
    given: Sequence[Token],
    defer_to_thread: DeferToThread,
) -> Keyring:
    """
    Make the keyring of a server, and save its keys.

    :param key_file: ``None`` when all three keys are given.
    :param given: The keys that the operator gives.
    :raise OSError: when the key file cannot be written, or belongs to another running server.
    """
    now, lifetime = dependencies.now(), timedelta(minutes=options.token_expiration_min)
    # A function of the application need not know what no option asks for.
    asked: dict[str, Any] = {}
    if options.token_overlap_sec:
        asked["overlap"] = timedelta(seconds=options.token_overlap_sec)
    for token in given:
        _log.info(
            "AUDIT The {kind} token (key {key_id}) is given by {given}; it does not expire",
            kind=token.kind.value,
            key_id=token.public_id,
            given=token.given,
        )
    found = list(given)
    if key_file is not None and KEPT[options.token_on_restart]:
        found += _kept_tokens(key_file.path, now, lifetime, given)
    if found:
        asked["found"] = found
    save = _save_nowhere if key_file is None else key_file.save
    return dependencies.keyring(
        save, dependencies.entropy, lifetime, now, dependencies.uptime, defer_to_thread, **asked
    )


def given_sources(options: ServerOptions, dependencies: Dependencies) -> tuple[Source, ...] | None:
    """
    Return where the operator gives keys; ``None`` if no keys authorize requests.

    :raise ValueError: when a kind of key is given twice.
    """
    if dependencies.authorizer is not None or options.disable_token_authorization:
        return None
    return sources_of({kind: getattr(options, name) for kind, name in OPTIONS.items()}, dependencies.environ)


def key_file_of(options: ServerOptions, sources: Sequence[Source] | None) -> KeyFile | None:
    """Return the key file; ``None`` if there are no keys, or the operator gives all of them."""
    if sources is None or len(sources) == len(TokenKind):
        return None
    return KeyFile(options.token_key_file, kept=KEPT[options.token_on_restart])


def _save_nowhere(_keys: KeySet) -> None:
    """Save nothing: the operator has all keys."""


def _kept_tokens(path: Path, now: datetime, lifetime: timedelta, given: Sequence[Token]) -> list[Token]:
    """
    Return the keys to go on with (``token_on_restart=keep``), and log which these are, or why there are none.

    :param given: Keys that are given now, in place of those of their kinds; those with the same secret are not kept.
    :raise KeyFileInUse: when the key file belongs to another running server.
    """
    kept = read_kept(path, now, lifetime)
    if kept.reason is not None:
        _log.warn("AUDIT No keys are kept from {path}, and all are new: {reason}", path=str(path), reason=kept.reason)
    kinds, secrets = {token.kind for token in given}, {token.secret for token in given}
    going_on = [token for token in kept.tokens if token.kind not in kinds and token.secret not in secrets]
    for token in going_on:
        _log.info(
            "AUDIT The {kind} token (key {key_id}) is kept from {path}; it {end}",
            kind=token.kind.value,
            key_id=token.public_id,
            path=str(path),
            end="does not expire" if token.expires is None else f"expires at {instant(token.expires)}",
        )
    return going_on


class Announcement(Service):
    """
    The log lines about token authorization, before the listeners are bound.

    :param tokens: Whether keys authorize requests.
    :param key_file: ``None`` without them, and when all of them are given.
    :param authorizer: The application's authorizer, if it decides instead.
    """

    def __init__(
        self,
        tokens: bool,
        key_file: KeyFile | None,
        authorizer: IAuthorizer | None,
        listeners: Sequence[Listener],
    ) -> None:
        self.setName("announcement")
        self._tokens = tokens
        self._key_file = key_file
        self._authorizer = authorizer
        self._listeners = listeners

    def privilegedStartService(self) -> None:
        """Log the path of the key file, the class of the authorizer, or a warning for each listener that is open."""
        super().privilegedStartService()
        if self._tokens:
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
        given: GivenWatch | None,
        live_keys: LiveKeys | None = None,
    ) -> None:
        self.setName("keys")
        self._given = given
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

    def reload(self) -> None:
        """Write the key file again with the live tokens, and read given and named keys again, in threads."""
        if isinstance(self._access, TokenAccess):
            Deferred.fromCoroutine(self._access.rotation.save_again())
        if self._given is not None:
            self._given.read_again()
        if self._live_keys is not None:
            self._live_keys.look(forced=True)
