# SPDX-License-Identifier: Apache-2.0
"""
Write tables in Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NUMBERS = frozenset({"connections", "measured", "target", "at most", "size", "refused or lost"})


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; what has a unit, or is measured, is a number."""
    rule = [
        "---:" if name in _NUMBERS or "," in name or "/" in name or name.startswith("to ") else "---" for name in head
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines)) + "\n"


def number(value: float | None) -> str:
    """Write a number as short as a table needs it."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
