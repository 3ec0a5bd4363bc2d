# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workflows.execution`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import InternalError, ModelNotFound, ServiceUnavailable
from twisted_serve.testing.strategies.workflows import Edges, dags
from twisted_serve.wire.messages import Item, Part
from twisted_serve.workflows.dag import Dag
from twisted_serve.workflows.execution import Attempt, execute
from twisted_serve.workflows.spec import MOST_NODES, Node, NodeSettings, WorkflowSpec

INPUTS = [Part("body", "", b"0")]


def item(body: bytes = b"{}", status: int = 200) -> Item:
    """Return a response."""
    return Item("r", status, "", {}, body)


class ExecutionTests(SynchronousTestCase):
    """Tests for requests that workers answer when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: dict[tuple[str, int], Deferred[Item]] = {}
        self.cancelled: list[str] = []

    def predict(self, attempt: Attempt) -> Deferred[Item]:
        key = (attempt.node, attempt.number)
        self.assertNotIn(key, self.asked)
        self.asked[key] = Deferred(lambda _: self.cancelled.append(attempt.node))
        return self.asked[key]

    def execute(
        self,
        edges: Mapping[str, list[str]],
        predict: Callable[[Attempt], Deferred[Item]] | None = None,
        **settings: int,
    ) -> Deferred[bytes | Mapping[str, Any]]:
        dag, said = Dag(edges), NodeSettings(**settings)
        spec = WorkflowSpec(said, {name: Node(name, None, said) for name in dag.nodes}, dag)
        return Deferred.fromCoroutine(execute(spec, INPUTS, predict or self.predict, self.clock))

    def assertFailed(self, answer: Deferred[Any], message: str, reason: str) -> None:
        error = self.failureResultOf(answer, InternalError).value
        self.assertEqual((error.status, error.message, error.reason), (500, message, reason))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_side_by_side(self) -> None:
        """Nodes that need nothing of each other run at the same time."""
        answer = self.execute({"a": ["b", "c"], "b": ["d"], "c": ["d"]})
        self.assertEqual(list(self.asked), [("a", 1)])
        self.asked["a", 1].callback(item())
        self.assertEqual(set(self.asked), {("a", 1), ("b", 1), ("c", 1)})
        self.asked["c", 1].callback(item())
        self.asked["b", 1].callback(item())
        self.asked["d", 1].callback(item(b"done"))
        self.assertEqual(self.successResultOf(answer), b"done")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_retried(self) -> None:
        """A node that fails, in whatever way, is asked again."""
        answer = self.execute({"a": []}, retry_attempts=3, timeout=1000)
        self.asked["a", 1].errback(ServiceUnavailable("full"))
        self.clock.advance(1)
        self.asked["a", 3].callback(item(status=500))
        self.asked["a", 4].callback(item(b"at last"))
        self.assertEqual(self.successResultOf(answer), b"at last")

    def test_failed(self) -> None:
        """When all attempts have failed, so has the request, with the node's name and the last reason."""
        answer = self.execute({"a": ["b"]}, retry_attempts=1)
        self.asked["a", 1].callback(item())
        self.asked["b", 1].errback(ModelNotFound("Model not found: w__b"))
        self.asked["b", 2].errback(ServiceUnavailable("full").because("very"))
        self.assertFailed(answer, "Error executing b", "all 2 attempts failed, the last one because of this: very")

    def test_status(self) -> None:
        """A handler that answers with an error has failed; there may be no second attempt."""
        answer = self.execute({"a": []}, retry_attempts=0)
        self.asked["a", 1].callback(item(status=404))
        self.assertFailed(
            answer, "Error executing a", "the attempt failed, the last one because it answered with status 404"
        )

    def test_timed_out(self) -> None:
        """The timeout applies to each attempt of a node; a call that timed out is cancelled."""
        answer = self.execute({"a": []}, retry_attempts=1, timeout=250)
        self.clock.advance(0.2)
        self.assertEqual(self.cancelled, [])
        self.clock.advance(0.1)
        self.assertEqual(self.cancelled, ["a"])
        self.clock.advance(0.25)
        self.assertFailed(
            answer,
            "Error executing a",
            "all 2 attempts failed, the last one because there was no answer within 250 ms",
        )

    def test_failure_ends_the_others(self) -> None:
        """When one node has failed for good, the others are cancelled immediately."""
        answer = self.execute({"a": ["b", "c"]}, retry_attempts=0)
        self.asked["a", 1].callback(item())
        self.asked["b", 1].errback(ServiceUnavailable("full"))
        self.assertFailed(answer, "Error executing b", "the attempt failed, the last one because of this: full")
        self.assertEqual(self.cancelled, ["c"])

    def test_client_gone(self) -> None:
        """Cancelling the request cancels all running nodes and starts no others."""
        answer = self.execute({"a": ["b", "c"], "b": ["d"]}, retry_attempts=5)
        self.asked["a", 1].callback(item())
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(set(self.cancelled), {"b", "c"})
        self.assertEqual(len(self.asked), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """A long path of nodes that answer immediately needs no deep stack."""
        edges = {f"n{at}": [f"n{at + 1}"] for at in range(MOST_NODES - 1)}
        answer = self.execute(edges, lambda attempt: succeed(item(attempt.node.encode())))
        self.assertEqual(self.successResultOf(answer), f"n{MOST_NODES - 1}".encode())

    def test_raised(self) -> None:
        """An exception raised synchronously counts as an attempt, too."""

        def gone(attempt: Attempt) -> Deferred[Item]:
            raise ModelNotFound("Model not found: w__a")

        self.assertFailed(
            self.execute({"a": []}, gone, retry_attempts=100),
            "Error executing a",
            "all 101 attempts failed, the last one because of this: Model not found: w__a",
        )

    def test_defect(self) -> None:
        """A defect is not retried, and is raised unchanged."""
        answer = self.execute({"a": []}, lambda _: fail(KeyError("defect")))
        self.failureResultOf(answer, KeyError)

    @given(dags(), st.data())
    def test_any(self, edges: Edges, data: st.DataObject) -> None:
        """Each node succeeds once, after those before it, however often it fails and in whatever order they answer."""
        self.setUp()
        retries = data.draw(st.integers(0, 2))
        answer = self.execute(edges, retry_attempts=retries)
        failures: dict[str, int] = {}
        done: list[str] = []
        while waiting := [key for key, asked in self.asked.items() if not asked.called]:
            node, number = data.draw(st.sampled_from(waiting))
            self.assertTrue(set(Dag(edges).before[node]) <= set(done))
            if failures.get(node, 0) < retries and data.draw(st.booleans()):
                failures[node] = number
                self.asked[node, number].errback(ServiceUnavailable("full"))
            else:
                done.append(node)
                self.asked[node, number].callback(item())
        self.successResultOf(answer)
        self.assertEqual(sorted(done), sorted(Dag(edges).nodes))
        self.assertEqual({node: failures.get(node, 0) + 1 for node in done}, dict(list(self.asked)))
