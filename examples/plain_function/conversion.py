# SPDX-License-Identifier: Apache-2.0
"""
Convert a length from one unit to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def convert(asked: Any, factors: Mapping[str, float]) -> dict[str, Any]:
    """
    Convert ``{"length": 3, "from": "mile", "to": "kilometre"}``.

    :raise KeyError: for a unit that is not known, or a member that is missing.
    :raise TypeError: for anything that is no object.
    :raise ValueError: for a length that is no number.
    """
    metres = float(asked["length"]) * factors[asked["from"]]
    return {"length": round(metres / factors[asked["to"]], 6), "unit": asked["to"]}
