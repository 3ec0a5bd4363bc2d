# SPDX-License-Identifier: Apache-2.0
"""
Mark functions as deprecated: the decorator ``deprecated``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["deprecated"]

_F = TypeVar("_F", bound=Callable[..., Any])


def deprecated(version: str, replacement: str = "") -> Callable[[_F], _F]:
    """
    Return a decorator whose function emits a ``DeprecationWarning`` when called.

    :param version: The version since which the function is deprecated.
    :param replacement: The function to call instead.
    """
    instead = f"; use {replacement}" if replacement else ""

    def mark(func: _F) -> _F:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            warnings.warn(f"{func.__name__} is deprecated since {version}{instead}", DeprecationWarning, stacklevel=2)
            return func(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return mark
