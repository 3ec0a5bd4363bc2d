# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workflows.progress`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import InternalError
from twisted_serve.testing.strategies.workflows import Edges, dags
from twisted_serve.wire.messages import Part
from twisted_serve.workflows.dag import Dag
from twisted_serve.workflows.progress import Progress

CLIENT = [Part("data", "image/png", b"picture"), Part("more", "", b"text", decode=False)]


class ProgressTests(SynchronousTestCase):
    """Tests for the progress of a request."""

    def finish(self, progress: Progress, answers: dict[str, bytes]) -> None:
        while not progress.finished:
            for node in progress.ready():
                progress.done(node, answers.get(node, b"{}"))

    def test_inputs(self) -> None:
        """The start node gets what the client sent, others what those before them answered: as body, or by name."""
        progress = Progress(Dag({"a": ["b", "c"], "b": ["d"], "c": ["d"]}), CLIENT)
        self.assertEqual(progress.ready(), ("a",))
        self.assertEqual(progress.inputs_of("a"), CLIENT)
        progress.done("a", b"1")
        self.assertEqual(set(progress.ready()), {"b", "c"})
        self.assertEqual(progress.inputs_of("b"), [Part("body", "", b"1", decode=False)])
        progress.done("c", b"3")
        self.assertEqual(progress.ready(), ())
        progress.done("b", b"2")
        self.assertEqual(progress.ready(), ("d",))
        self.assertEqual(
            progress.inputs_of("d"), [Part("b", "", b"2", decode=False), Part("c", "", b"3", decode=False)]
        )

    def test_one_leaf(self) -> None:
        """One leaf's answer is the answer, whatever it is."""
        progress = Progress(Dag({"a": ["b"]}), CLIENT)
        self.finish(progress, {"b": b"\xff not JSON"})
        self.assertEqual(progress.answer(), b"\xff not JSON")

    def test_several_leaves(self) -> None:
        """Of several leaves the objects are put together, by name."""
        progress = Progress(Dag({"a": ["b", "c"]}), CLIENT)
        self.finish(progress, {"b": b'{"x": 1}'})
        self.assertEqual(progress.answer(), {"b": {"x": 1}, "c": {}})

    def test_no_object(self) -> None:
        """A leaf among several that is no object fails the request, and is named."""
        for answer in (b"[1]", b"1", b"", b"\xff", b"{", b"[" * 100_000):
            progress = Progress(Dag({"a": ["b", "c"]}), CLIENT)
            self.finish(progress, {"c": answer})
            error = self.assertRaises(InternalError, progress.answer)
            self.assertEqual(error.message, "Workflow inference request failed!")
            self.assertTrue(error.reason and error.reason.startswith("c is one of several leaves"))

    @given(dags(), st.data())
    def test_any(self, edges: Edges, data: st.DataObject) -> None:
        """In whatever order nodes answer, each runs once, and when all before it have answered."""
        dag = Dag(edges)
        progress, running, ran = Progress(dag, CLIENT), list[str](), list[str]()
        while not progress.finished:
            running += progress.ready()
            node = data.draw(st.sampled_from(running))
            running.remove(node)
            given = {part.name: part.value for part in progress.inputs_of(node)}
            before = dag.before[node]
            self.assertTrue(set(before) <= set(ran))
            if len(before) == 1:
                self.assertEqual(given, {"body": before[0].encode()})
            elif before:
                self.assertEqual(given, {other: other.encode() for other in before})
            ran.append(node)
            progress.done(node, node.encode())
        self.assertEqual((sorted(ran), running), (sorted(dag.nodes), []))
