# SPDX-License-Identifier: Apache-2.0
"""
This module implements strategies for the graphs of workflows: those that come to an end, and others.
"""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import strategies as st

#: The nodes after each node.
Edges: TypeAlias = dict[str, list[str]]


@st.composite
def dags(draw: st.DrawFn, max_size: int = 8) -> Edges:
    """Build edges without a cycle, from one start node; they are mentioned in any order."""
    names = [f"n{number}" for number in range(draw(st.integers(1, max_size)))]
    edges: Edges = {name: [] for name in names}
    for at, name in enumerate(names[1:], 1):
        for other in draw(st.lists(st.sampled_from(names[:at]), min_size=1, unique=True)):
            edges[other].append(name)
    order = draw(st.permutations(names))
    # A leaf may be mentioned on its own, or not.
    unmentioned = draw(st.sets(st.sampled_from(names))) if len(names) > 1 else set()
    return {name: edges[name] for name in order if edges[name] or name not in unmentioned}


@st.composite
def cyclic_graphs(draw: st.DrawFn) -> Edges:
    """Build edges with a cycle of two nodes at least, which may have a way in."""
    edges = {name: list(after) for name, after in draw(dags()).items()}
    ring = [f"r{number}" for number in range(draw(st.integers(2, 5)))]
    for name, after in zip(ring, [*ring[1:], ring[0]], strict=True):
        edges[name] = [after]
    if draw(st.booleans()):
        edges[draw(st.sampled_from(sorted(edges.keys() - set(ring))))].append(draw(st.sampled_from(ring)))
    return dict(draw(st.permutations(list(edges.items()))))
