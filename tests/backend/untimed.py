# SPDX-License-Identifier: Apache-2.0
"""What tests of the worker's side share: what it said, without the time that it took."""

from __future__ import annotations

from msgspec.structs import replace

from twisted_serve.wire.messages import FromWorker, Predicted


def untimed(message: FromWorker) -> FromWorker:
    """Leave away how long a batch took, which is another time each time."""
    return replace(message, seconds=0.0) if isinstance(message, Predicted) else message
