# SPDX-License-Identifier: Apache-2.0
"""
This module implements the door to Captum, which explains answers, and which few installations have.
"""

from __future__ import annotations

import importlib
from typing import Any

from twisted_serve.handlers.exceptions import PredictionException

__all__ = ["captum_attr"]


def captum_attr() -> Any:
    """
    Get the module ``captum.attr``.

    :raise PredictionException: 501, if it is not installed: a client asked for what this server cannot do.
    """
    try:
        return importlib.import_module("captum.attr")
    except ModuleNotFoundError as e:
        raise PredictionException("explanations need the package captum, which is not installed", 501) from e
