# SPDX-License-Identifier: Apache-2.0
"""
This module implements one request on its way through a workflow: which nodes can run now, with what, and the answer.

``docs/torchserve/grpc_workflows_kserve.md`` §3.4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from twisted_serve.errors import InternalError
from twisted_serve.wire.messages import Part
from twisted_serve.workflows.dag import Dag


class Progress:
    """
    What the nodes of a workflow have answered so far.

    :param inputs: What the client sent.
    """

    def __init__(self, dag: Dag, inputs: Sequence[Part]) -> None:
        self._dag = dag
        self._inputs = inputs
        self._before = dag.before
        self._answers: dict[str, bytes] = {}
        self._order = TopologicalSorter(self._before)
        self._order.prepare()

    @property
    def finished(self) -> bool:
        """Whether every node has answered."""
        return not self._order.is_active()

    def ready(self) -> tuple[str, ...]:
        """List the nodes that can run and that have not been listed before."""
        return self._order.get_ready()

    def inputs_of(self, node: str) -> list[Part]:
        """
        Return what a node that can run is given.

        That is what the client sent, for the start node; ``body``, after one other; after several, one part for
        each of them, by its name.
        """
        before = self._before[node]
        if not before:
            return list(self._inputs)
        # Without a content type: a handler sees bytes, whatever they are.
        names = ["body"] if len(before) == 1 else before
        return [Part(name, "", self._answers[other], decode=False) for name, other in zip(names, before, strict=True)]

    def done(self, node: str, answer: bytes) -> None:
        """Take a node's answer."""
        self._answers[node] = answer
        self._order.done(node)

    def answer(self) -> bytes | Mapping[str, Any]:
        """
        Return the whole answer: of one leaf the bytes; of several, the object that each answered, by its name.

        :raise InternalError: if one of several did not answer with a JSON object.
        """
        leaves = self._dag.leaves
        if len(leaves) == 1:
            return self._answers[leaves[0]]
        return {leaf: _object(leaf, self._answers[leaf]) for leaf in leaves}


def _object(leaf: str, answer: bytes) -> Any:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InternalError("Workflow inference request failed!").because(
            f"{leaf} is one of several leaves, and did not answer with a JSON object"
        )
    return value
