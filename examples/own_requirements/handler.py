# SPDX-License-Identifier: Apache-2.0
"""
Use a package that only this archive requires.
"""

from __future__ import annotations

from typing import Any

import roman_figures


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any] | None:
    """Write numbers as the Romans did."""
    if data is None:
        return None
    answers: list[Any] = []
    for index, row in enumerate(data):
        body = row.get("body") or ""
        text = (body if isinstance(body, str) else bytes(body).decode("ascii", "replace")).strip()
        try:
            answers.append({"figures": roman_figures.write(int(text)), "version": roman_figures.__version__})
        except ValueError as e:
            context.set_response_status(400, "Bad Request", index)
            answers.append({"code": 400, "type": "BadRequestException", "message": f"Not a number of theirs: {e}"})
    return answers
