# SPDX-License-Identifier: Apache-2.0
"""
Set the status and message of an error response: ``PredictionException``.
"""

from __future__ import annotations

__all__ = ["PredictionException"]


class PredictionException(Exception):
    """
    Raise it to answer every request of the batch with this message and status.

    To answer a single request of a batch with an error, use
    :meth:`twisted_serve.handlers.context.Context.set_response_status`.

    :ivar error_code: The HTTP status.
    """

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"
