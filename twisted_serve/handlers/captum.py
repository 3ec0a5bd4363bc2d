# SPDX-License-Identifier: Apache-2.0
"""
Import Captum, an optional package that explains predictions.
"""

from __future__ import annotations

import importlib
from typing import Any

from twisted_serve.handlers.exceptions import PredictionException

__all__ = ["captum_attr"]


def captum_attr() -> Any:
    """
    Return the module ``captum.attr``.

    :raise PredictionException: 501, if Captum is not installed: the client asked for an explanation.
    """
    try:
        return importlib.import_module("captum.attr")
    except ModuleNotFoundError as e:
        raise PredictionException("explanations need the package captum, which is not installed", 501) from e
