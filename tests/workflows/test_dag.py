# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workflows.dag`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import InvalidDag
from twisted_serve.testing.strategies.workflows import Edges, cyclic_graphs, dags
from twisted_serve.workflows.dag import Dag


class DagTests(SynchronousTestCase):
    """Tests for the graph of a workflow."""

    def assertRefused(self, edges: Mapping[str, Sequence[str]], message: str, reason: str) -> None:
        error = self.assertRaises(InvalidDag, Dag, edges)
        self.assertEqual((error.status, error.message, error.reason), (400, message, reason))

    def test_refused(self) -> None:
        """An invalid graph is refused with TorchServe's text and the names of the nodes."""
        start = "DAG should have only one start node"
        for edges, message, reason in (
            ({}, start, "there is no node"),
            ({"a": ["c"], "b": ["c"]}, start, "the start nodes are a, b"),
            ({"a": [], "b": []}, start, "the start nodes are a, b"),
            ({"a": ["a"]}, "Self loop exception", "a comes after itself"),
            ({"a": ["b", "b"]}, "loop exception", "b comes after a twice"),
            ({"a": ["b"], "b": ["a"]}, start, "a -> b -> a is a cycle"),
            ({"s": ["a"], "a": ["b"], "b": ["a"]}, "Not a valid DAG", "a -> b -> a is a cycle"),
        ):
            self.assertRefused(edges, message, reason)

    def test_shape(self) -> None:
        """A graph knows its nodes, what comes before each, and its leaves, whether they are mentioned or not."""
        dag = Dag({"pre": ["m1", "m2"], "m1": ["post"], "m2": ["post", "other"], "other": []})
        self.assertEqual(dag.nodes, ("pre", "m1", "m2", "post", "other"))
        self.assertEqual(dag.before["post"], ("m1", "m2"))
        self.assertEqual(dag.before["pre"], ())
        self.assertEqual(dag.leaves, ("post", "other"))

    def test_text(self) -> None:
        """It is shown as Java shows a map."""
        dag = Dag({"preprocessing": ["m1", "m2"], "m1": ["end"], "m2": ["end"], "end": []})
        self.assertEqual(str(dag), "{preprocessing=[m1, m2], m1=[end], m2=[end], end=[]}")

    @given(dags())
    def test_any(self, edges: Edges) -> None:
        """A graph without a cycle and with one start is accepted; each edge is known from both of its ends."""
        dag = Dag(edges)
        self.assertEqual(
            {(node, after) for after, before in dag.before.items() for node in before},
            {(node, after) for node, some in edges.items() for after in some},
        )
        self.assertTrue(set(dag.leaves) <= set(dag.nodes))

    @given(cyclic_graphs())
    def test_any_cycle(self, edges: Edges) -> None:
        """A graph with a cycle is refused, and if that is the only thing wrong with it the cycle is shown."""
        error = self.assertRaises(InvalidDag, Dag, edges)
        assert error.reason is not None
        if error.message == "Not a valid DAG":
            *cycle, again = error.reason.removesuffix(" is a cycle").split(" -> ")
            self.assertEqual(cycle[0], again)
            for node, after in zip(cycle, [*cycle[1:], again], strict=True):
                self.assertIn(after, edges[node])
