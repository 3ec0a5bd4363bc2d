# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``deprecated``, with which handlers mark what is to be called otherwise.
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
    Have a function warn when it is called.

    :param version: Since when it is deprecated.
    :param replacement: What to call instead.
    """
    instead = f"; use {replacement}" if replacement else ""

    def mark(func: _F) -> _F:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            warnings.warn(f"{func.__name__} is deprecated since {version}{instead}", DeprecationWarning, stacklevel=2)
            return func(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return mark
