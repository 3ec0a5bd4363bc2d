# SPDX-License-Identifier: Apache-2.0
"""
Log the requests of a listener in the access log.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from twisted_serve.logs.events import log_access


class AccessLog:
    """
    The access log of one listener.

    :param log: The logger of the events.
    :param redact: Replaces the keys in a request target.
    """

    __slots__ = ("_log", "_redact")

    def __init__(self, log: Logger, redact: Callable[[bytes], bytes]) -> None:
        self._log = log
        self._redact = redact

    def add(
        self,
        peer: tuple[str, int] | None,
        method: bytes,
        target: bytes,
        version: bytes,
        status: int,
        elapsed: float,
        request_id: str | None,
        named: bool,
        principal: str | None,
    ) -> None:
        """
        Log one request.

        :param peer: Host and port; ``None`` for a client on a UNIX socket.
        :param method: As the client sent it, like ``target`` and ``version``.
        :param target: With its keys, which are redacted here.
        :param elapsed: Seconds.
        :param request_id: The ``X-Request-Id`` of the response.
        :param named: Whether the client has chosen the id.
        :param principal: The name that an application's authorizer has given the sender.
        """
        log_access(
            self._log,
            peer=peer,
            method=method,
            target=self._redact(target),
            version=version,
            status=status,
            elapsed=elapsed,
            request_id=request_id,
            named=named,
            principal=principal,
        )
