# SPDX-License-Identifier: Apache-2.0
"""
This module implements the class that an asynchronous handler may be made from.

Its model says ``asyncCommunication: true``, and its worker answers many requests at a time on one event loop.
"""

from __future__ import annotations

from typing import Any

from twisted_serve.handlers.context import Context

__all__ = ["AsyncService"]


class AsyncService:
    """
    A handler whose ``handle`` is a coroutine function.  Any class with ``async def handle`` will do as well.

    Each call has a context of its own: what it sets there is not seen by another call.
    """

    def initialize(self, context: Context) -> None:
        """Load the model; the worker's event loop is running."""

    async def handle(self, data: list[dict[str, Any]], context: Context) -> list[Any]:
        """Answer a batch while others are being answered; cancelled when all of its clients have gone."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to answer")
