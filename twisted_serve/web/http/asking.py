# SPDX-License-Identifier: Apache-2.0
"""
Hold a request back while an application's authorizer decides whether its body is read.
"""

from __future__ import annotations

from abc import abstractmethod

from twisted_serve.auth.asking import Asking
from twisted_serve.web.http.early_responses import EarlyResponseChannel
from twisted_serve.web.http.request import ServeRequest


class AskingChannel(EarlyResponseChannel):
    """The part of a connection that waits for an authorizer after the head of a request with a body."""

    _held = False
    _timeout_before: int | None = None

    def _hold(self, request: ServeRequest, asking: Asking) -> None:
        """Ask about a request, and read on when it is answered."""
        self._held = self.paused = True
        # The authorizer's time is bounded elsewhere, and is not the client's.
        self._clear_deadline()
        self._timeout_before = self.setTimeout(None)
        request.ask(asking, self._release)

    def _keep(self, data: bytes) -> None:
        """Buffer what arrives meanwhile; beyond a little, read no more, though then a disconnect goes unnoticed."""
        self._buffer += data
        if len(self._buffer) > self._optimisticEagerReadSize:
            self._networkProducer.pauseProducing()

    def _release(self) -> None:
        """Go on with the request whose head has arrived: refuse it, or read its body."""
        self._held = False
        self.setTimeout(self._timeout_before)
        self.allHeadersReceived()
        if not self.has_postponed_read:
            self.paused = True
            self._resume_reading()

    @property
    @abstractmethod
    def has_postponed_read(self) -> bool:
        """Whether reading resumes in the next reactor iteration."""

    @abstractmethod
    def _resume_reading(self) -> None:
        """Read on, unless the client must read first."""
