# SPDX-License-Identifier: Apache-2.0
"""
Compare sizes: what a request costs, and what the front takes, beside more connections, models or keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.results import Scaled
from benchmarks.tables import number, table


def middle(scaled: Sequence[Scaled]) -> list[Scaled]:
    """Return the medians of the rounds, in the order of the first; what was refused is added up."""
    places = dict.fromkeys((each.subject, each.size) for each in scaled)
    found = []
    for subject, size in places:
        same = [each for each in scaled if (each.subject, each.size) == (subject, size)]
        numbers = {name: median(getattr(each, name) for each in same) for name in ("rate", "p99_ms", "cpu_us")}
        front, refused = int(median(each.front for each in same)), sum(each.refused for each in same)
        found.append(Scaled(subject, size, 0, **numbers, front=front, refused=refused))
    return found


def scaling(scaled: Sequence[Scaled]) -> str:
    """Write the table; ratios and growth are to the smallest size of the same subject."""
    lines = []
    found = middle(scaled)
    for each in found:
        least = min((other for other in found if other.subject == each.subject), key=lambda other: other.size)
        more = each.size - least.size
        lines.append(
            [
                each.subject,
                str(each.size),
                *map(number, (each.rate, each.rate / least.rate if least.rate else None, each.p99_ms, each.cpu_us)),
                number(each.cpu_us / least.cpu_us if least.cpu_us else None),
                number(each.front / 1e6),
                f"{(each.front - least.front) / more / 1e3:.1f}" if more else "-",
                str(each.refused),
            ]
        )
    head = ["number of", "size", "requests/s", "to the smallest", "p99, ms", "CPU/request, µs"]
    head += ["to the smallest", "front, MB", "front/more, KB", "refused or lost"]
    return table(head, lines)
