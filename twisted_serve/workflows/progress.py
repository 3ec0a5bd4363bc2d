# SPDX-License-Identifier: Apache-2.0
"""
Track one request through a workflow: which nodes are ready, their inputs, and the response.

See ``docs/torchserve/grpc_workflows_kserve.md`` §3.4.
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
    The state of one request in a workflow.

    :param inputs: The parts of the client's request.
    """

    def __init__(self, dag: Dag, inputs: Sequence[Part]) -> None:
        self._dag = dag
        self._inputs = inputs
        self._predecessors = dag.before
        self._answers: dict[str, bytes] = {}
        self._order = TopologicalSorter(self._predecessors)
        self._order.prepare()

    @property
    def finished(self) -> bool:
        """Whether every node has responded."""
        return not self._order.is_active()

    def ready(self) -> tuple[str, ...]:
        """Return the nodes that have become ready since the last call."""
        return self._order.get_ready()

    def inputs_of(self, node: str) -> list[Part]:
        """
        Return the inputs of a node that is ready.

        The start node gets the client's parts; a node with one predecessor, that node's response as ``body``; a node
        with several, one part per predecessor, by its name.
        """
        before = self._predecessors[node]
        if not before:
            return list(self._inputs)
        # Without a content type, so that handlers receive bytes whatever they contain.
        names = ["body"] if len(before) == 1 else before
        return [Part(name, "", self._answers[other], decode=False) for name, other in zip(names, before, strict=True)]

    def done(self, node: str, answer: bytes) -> None:
        """Record a node's response."""
        self._answers[node] = answer
        self._order.done(node)

    def answer(self) -> bytes | Mapping[str, Any]:
        """
        Return the response: the bytes of a single leaf, or the JSON objects of several leaves by name.

        :raise InternalError: if one of several leaves did not return a JSON object.
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
