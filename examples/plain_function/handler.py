# SPDX-License-Identifier: Apache-2.0
"""
Handle requests in one function, with its rules in a second file and its data in a third.
"""

from __future__ import annotations

import csv
from typing import Any

from conversion import convert

factors: dict[str, float] = {}


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any] | None:
    """Convert lengths; the first call, without data, is the one to load in."""
    if data is None:
        # The model's directory is the current one.
        with open("data/factors.csv", encoding="utf-8", newline="") as table:
            factors.update({row["unit"]: float(row["metres"]) for row in csv.DictReader(table)})
        return None
    return [_answer(row.get("body"), index, context) for index, row in enumerate(data)]


def _answer(body: Any, index: int, context: Any) -> Any:
    context.set_response_content_type(index, "application/json")
    try:
        return convert(body, factors)
    except (KeyError, TypeError, ValueError) as e:
        context.set_response_status(400, "Bad Request", index)
        return {"code": 400, "type": "BadRequestException", "message": f"Not a length that can be converted: {e}"}
