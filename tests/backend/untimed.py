# SPDX-License-Identifier: Apache-2.0
"""Shared helper for tests of the worker's side: its messages without measured durations."""

from __future__ import annotations

from msgspec.structs import replace

from twisted_serve.wire.messages import FromWorker, Predicted, PredictFailed


def untimed(message: FromWorker) -> FromWorker:
    """Leave away how long a batch took, and its metrics, which differ each time."""
    if isinstance(message, Predicted):
        return replace(message, seconds=0.0, metrics=[])
    return replace(message, metrics=[]) if isinstance(message, PredictFailed) else message
