# SPDX-License-Identifier: Apache-2.0
"""
Provide a base class for asynchronous handlers.

The model sets ``asyncCommunication: true``; its worker then runs many batches concurrently on one event loop.
"""

from __future__ import annotations

from typing import Any

from twisted_serve.handlers.context import Context

__all__ = ["AsyncService"]


class AsyncService:
    """
    A handler whose ``handle`` is a coroutine function; any class with ``async def handle`` works as well.

    Each call gets its own copy of the context, so attributes set on one are not visible to other calls.
    """

    def initialize(self, context: Context) -> None:
        """Load the model. The worker's event loop is already running."""

    async def handle(self, data: list[dict[str, Any]], context: Context) -> list[Any]:
        """
        Return one response for each request of a batch; other batches may run meanwhile.

        The task is cancelled when all clients of the batch have disconnected.

        :param data: One dictionary for each request.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to answer")
