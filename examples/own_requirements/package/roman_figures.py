# SPDX-License-Identifier: Apache-2.0
"""
Write numbers in Roman numerals.
"""

from __future__ import annotations

__version__ = "1.2.0"

_FIGURES = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"),
    (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip


def write(number: int) -> str:
    """
    Write a number from 1 to 3999.

    :raise ValueError: for any other.
    """
    if not 0 < number < 4000:
        raise ValueError(f"{number} is not from 1 to 3999")
    written = ""
    for value, figure in _FIGURES:
        count, number = divmod(number, value)
        written += count * figure
    return written
