# SPDX-License-Identifier: Apache-2.0
"""
Measure the time of handler methods, if ``model-config.yaml`` enables it: the decorator ``timed``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

__all__ = ["timed"]

_F = TypeVar("_F", bound=Callable[..., Any])


def timed(func: _F) -> _F:
    """
    Emit the gauge ``ts_handler_<method>`` in milliseconds if ``handler: {profile: true}`` is in ``model-config.yaml``.

    If CUDA is initialized, the device is synchronized before and after, so that the time includes queued work.
    """

    @functools.wraps(func)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        context: Any = getattr(self, "context", None)
        if not _is_enabled(context):
            return func(self, *args, **kwargs)
        _synchronize()
        start = perf_counter()
        result = func(self, *args, **kwargs)
        _synchronize()
        context.metrics.add_time(f"ts_handler_{func.__name__}", (perf_counter() - start) * 1000)
        return result

    return wrapper  # type: ignore[return-value]


def _is_enabled(context: Any) -> bool:
    settings = getattr(context, "model_yaml_config", None)
    handler = settings.get("handler") if isinstance(settings, dict) else None
    return isinstance(handler, dict) and bool(handler.get("profile")) and context.metrics is not None


def _synchronize() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
