# SPDX-License-Identifier: Apache-2.0
"""
Describe a refusal to the client, for any transport.
"""

from __future__ import annotations

from twisted_serve.auth.gate import Denied, refusal_text
from twisted_serve.auth.keyring import Reason
from twisted_serve.errors import InsufficientScope, InvalidKey, ServeError, TooManyRequests


def refusal_error(denied: Denied) -> ServeError:
    """
    Return the error that a client without the right gets.

    Why a key is not good is not told. The owner of a good named key is told what the key may not do.
    """
    if denied.reason is Reason.SCOPE:
        operation = None if denied.need is None else denied.need.operation
        wanted = "this" if operation is None else operation.name.lower().replace("_", " ")
        return InsufficientScope(f"The key {denied.name} has no scope for this request ({wanted}).")
    if denied.reason is Reason.RATE:
        return TooManyRequests(f"The key {denied.name} has made as many requests as it may.", denied.retry_after)
    if denied.reason is Reason.CONCURRENT:
        return TooManyRequests(f"The key {denied.name} has as many requests in progress as it may.", denied.retry_after)
    return InvalidKey(refusal_text(denied.kind))
