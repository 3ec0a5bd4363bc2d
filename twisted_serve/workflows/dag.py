# SPDX-License-Identifier: Apache-2.0
"""
Define and validate a workflow's graph of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from attrs import field, frozen

from twisted_serve.errors import InvalidDag


def _lists(edges: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {node: tuple(after) for node, after in edges.items()}


@frozen
class Dag:
    """
    A directed acyclic graph with one start node, from which all other nodes can be reached.

    :ivar edges: The successors of each node in document order; a node without successors may be omitted.
    :raise InvalidDag: for edges that do not form such a graph, naming the nodes.
    """

    edges: Mapping[str, Sequence[str]] = field(converter=_lists)

    def __attrs_post_init__(self) -> None:
        """Check the graph, in the order of TorchServe's checks."""
        for node, after in self.edges.items():
            if node in after:
                raise InvalidDag("Self loop exception").because(f"{node} comes after itself")
            twice = next((other for at, other in enumerate(after) if other in after[:at]), None)
            if twice is not None:
                # TorchServe's message for a duplicate edge.
                raise InvalidDag("loop exception").because(f"{twice} comes after {node} twice")
        cycle = self._cycle()
        starts = [node for node, before in self.before.items() if not before]
        if len(starts) != 1:
            found = f"the start nodes are {', '.join(starts)}" if starts else "there is no node"
            raise InvalidDag("DAG should have only one start node").because(
                f"{' -> '.join(cycle)} is a cycle" if cycle and not starts else found
            )
        if cycle:
            raise InvalidDag("Not a valid DAG").because(f"{' -> '.join(cycle)} is a cycle")

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, in order of first occurrence."""
        return tuple(dict.fromkeys(self._mentioned()))

    @property
    def before(self) -> dict[str, tuple[str, ...]]:
        """The predecessors of each node."""
        before: dict[str, list[str]] = {node: [] for node in self.nodes}
        for node, after in self.edges.items():
            for other in after:
                before[other].append(node)
        return _lists(before)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The nodes without successors; their responses form the workflow's response."""
        return tuple(node for node in self.nodes if not self.edges.get(node))

    def __str__(self) -> str:
        """Render the edges as Java renders a map, the format that clients know."""
        return "{" + ", ".join(f"{node}=[{', '.join(after)}]" for node, after in self.edges.items()) + "}"

    def _mentioned(self) -> Iterator[str]:
        for node, after in self.edges.items():
            yield node
            yield from after

    def _cycle(self) -> list[str]:
        """Return the nodes of a cycle, the first one repeated at the end, or an empty list."""
        try:
            TopologicalSorter(self.before).prepare()
        except CycleError as e:
            # CycleError lists each node before its successor.
            return list(e.args[1])
        return []
