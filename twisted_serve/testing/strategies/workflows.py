# SPDX-License-Identifier: Apache-2.0
"""
Generate the graphs of workflows, with and without cycles.
"""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import strategies as st

#: The successors of each node.
Edges: TypeAlias = dict[str, list[str]]


@st.composite
def dags(draw: st.DrawFn, max_size: int = 8) -> Edges:
    """Generate acyclic edges from one start node, in any order."""
    names = [f"n{number}" for number in range(draw(st.integers(1, max_size)))]
    edges: Edges = {name: [] for name in names}
    for at, name in enumerate(names[1:], 1):
        for other in draw(st.lists(st.sampled_from(names[:at]), min_size=1, unique=True)):
            edges[other].append(name)
    order = draw(st.permutations(names))
    # A leaf may or may not have an entry of its own.
    unmentioned = draw(st.sets(st.sampled_from(names))) if len(names) > 1 else set()
    return {name: edges[name] for name in order if edges[name] or name not in unmentioned}


@st.composite
def cyclic_graphs(draw: st.DrawFn) -> Edges:
    """Generate edges with a cycle of at least two nodes, which may be reachable from outside."""
    edges = {name: list(after) for name, after in draw(dags()).items()}
    ring = [f"r{number}" for number in range(draw(st.integers(2, 5)))]
    for name, after in zip(ring, [*ring[1:], ring[0]], strict=True):
        edges[name] = [after]
    if draw(st.booleans()):
        edges[draw(st.sampled_from(sorted(edges.keys() - set(ring))))].append(draw(st.sampled_from(ring)))
    return dict(draw(st.permutations(list(edges.items()))))
