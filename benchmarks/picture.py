# SPDX-License-Identifier: Apache-2.0
"""
Draw the results for the documentation.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.results import LIMIT, OPEN, Results

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "docs" / "performance.svg"


def bars(results: Results, connections: int) -> dict[str, list[float]]:
    """Return the requests per second of each server, by case, relative to the fastest server of the case."""
    servers = [name for name in results.servers() if name not in (LIMIT, OPEN)]
    found: dict[str, list[float]] = {name: [] for name in servers}
    for case in CASES:
        rates = {}
        for name in servers:
            row = results.best(name, case.name, connections)
            rates[name] = 0.0 if row is None else row.rate
        most = max(rates.values(), default=0.0)
        for name in servers:
            found[name].append(rates[name] / most if most else 0.0)
    return {name: values for name, values in found.items() if any(values)}


def draw(results: Results, file: Path, connections: int = 64) -> None:
    """Draw requests per second at 64 connections, each case on its own scale."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    shares = bars(results, connections)
    figure, axes = plt.subplots(figsize=(9, 4.2))
    width = 0.8 / max(1, len(shares))
    for position, (name, values) in enumerate(shares.items()):
        places = [index + position * width for index in range(len(values))]
        axes.bar(places, values, width, label=name)
        for place, case, value in zip(places, CASES, values, strict=True):
            row = results.best(name, case.name, connections)
            if row is not None and value:
                axes.annotate(f"{row.rate:.0f}", (place, value), ha="center", va="bottom", fontsize=7)
    axes.set_xticks(
        [index + 0.4 - width / 2 for index in range(len(CASES))], [case.title for case in CASES], fontsize=8
    )
    axes.set_yticks([])
    axes.set_title(f"requests per second at {connections} connections (each case on its own scale)", fontsize=10)
    axes.legend(fontsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    draw(Results(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results" / "latest.jsonl"), PICTURE)
    print(PICTURE)
