# SPDX-License-Identifier: Apache-2.0
"""
This module implements the graph of a workflow: what comes after what, from one node in which everything begins.
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
    A directed graph without cycles and with one start node, so that all of it can be reached from there.

    :ivar edges: The nodes after a node, as they were written; a node with none need not be mentioned.
    :raise InvalidDag: for edges that make no such graph, naming the nodes.
    """

    edges: Mapping[str, Sequence[str]] = field(converter=_lists)

    def __attrs_post_init__(self) -> None:
        """Check the graph; the order of the checks is the predecessor's."""
        for node, after in self.edges.items():
            if node in after:
                raise InvalidDag("Self loop exception").because(f"{node} comes after itself")
            twice = next((other for at, other in enumerate(after) if other in after[:at]), None)
            if twice is not None:
                # It is what the predecessor says of an edge that is there twice.
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
        """All nodes, in the order in which they are mentioned."""
        return tuple(dict.fromkeys(self._mentioned()))

    @property
    def before(self) -> dict[str, tuple[str, ...]]:
        """The nodes before each node."""
        before: dict[str, list[str]] = {node: [] for node in self.nodes}
        for node, after in self.edges.items():
            for other in after:
                before[other].append(node)
        return _lists(before)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The nodes after which nothing comes: their answers are the workflow's."""
        return tuple(node for node in self.nodes if not self.edges.get(node))

    def __str__(self) -> str:
        """Write the edges as Java writes a map, which is what clients know."""
        return "{" + ", ".join(f"{node}=[{', '.join(after)}]" for node, after in self.edges.items()) + "}"

    def _mentioned(self) -> Iterator[str]:
        for node, after in self.edges.items():
            yield node
            yield from after

    def _cycle(self) -> list[str]:
        """Find nodes that come after each other in a circle, the first one again at the end."""
        try:
            TopologicalSorter(self.before).prepare()
        except CycleError as e:
            # It lists them so that each comes before the next.
            return list(e.args[1])
        return []
