# SPDX-License-Identifier: Apache-2.0
"""
This module implements the specification of a workflow: its nodes, each with its settings, and their graph.

``docs/torchserve/grpc_workflows_kserve.md`` §3.2 has the grammar.  Settings that stand above nodes
hold for the nodes which come after them in the document, and only for these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from twisted_serve.archives.documents import DocumentError, load_yaml
from twisted_serve.archives.keys import attributes_of, integer, mapping, wrong
from twisted_serve.archives.names import name_flaw
from twisted_serve.errors import InvalidWorkflow
from twisted_serve.workflows.dag import Dag

# Each node has a worker of its own at least.
MOST_NODES = 256

# More than that for one request is no patience but a mistake; and nobody waits between attempts.
MOST_RETRIES = 100

# Characters of a node's name, which becomes a part of a model's.
_MOST_CHARACTERS = 200


@frozen
class NodeSettings:
    """
    How a node is run.

    :ivar min_workers: Shown and nothing more: a node has ``max_workers``.
    :ivar max_batch_delay: Milliseconds.
    :ivar retry_attempts: How often a node that fails is asked again.
    :ivar timeout: Milliseconds that each attempt may take.
    """

    min_workers: int = integer("min-workers", 0, 1)
    max_workers: int = integer("max-workers", 1, 1)
    batch_size: int = integer("batch-size", 1, 1)
    max_batch_delay: int = integer("max-batch-delay", 0, 50)
    retry_attempts: int = integer("retry-attempts", 0, 1, MOST_RETRIES)
    timeout: int = integer("timeout-ms", 1, 10_000)

    def but(self, said: Mapping[str, Any]) -> NodeSettings:
        """
        Return these settings with what is said of some; other keys count for nothing.

        :raise ValueError: for a value of the wrong type, naming the key.
        """
        known = attributes_of(NodeSettings)
        return evolve(self, **{known[key]: value for key, value in said.items() if key in known and value is not None})


@frozen
class Node:
    """
    A model, or a function of the workflow's own handler.

    :ivar url: Where the model's archive is; ``None`` for a function.
    """

    name: str
    url: str | None
    settings: NodeSettings


@frozen
class WorkflowSpec:
    """
    What a workflow consists of.

    :ivar settings: What was said for all nodes.
    :ivar nodes: Those of the graph, by name.
    :ivar unused: The names of models that are not in the graph.
    """

    settings: NodeSettings
    nodes: Mapping[str, Node]
    dag: Dag
    unused: tuple[str, ...] = ()

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the nodes that are functions."""
        return tuple(node.name for node in self.nodes.values() if node.url is None)


def load_spec(path: Path) -> WorkflowSpec:
    """
    Read a specification.

    :raise InvalidWorkflow: if it is none, naming what is wrong.
    :raise InvalidDag: as `Dag`.
    """
    try:
        return read_spec(load_yaml(path))
    except DocumentError as e:
        raise _unparsable(str(e)) from e
    except OSError as e:
        raise _unparsable(f"{path.name}: {e.strerror}") from e


def read_spec(document: object) -> WorkflowSpec:
    """
    Read a specification that is parsed already.

    :raise InvalidWorkflow: if it is none, naming what is wrong.
    :raise InvalidDag: as `Dag`.
    """
    try:
        whole = mapping("the document", document)
        settings, models = _models(mapping("models", whole.get("models") or {}))
        dag = Dag(_edges(mapping("dag", whole.get("dag"))))
        if len(dag.nodes) > MOST_NODES:
            raise ValueError(f"dag has {len(dag.nodes)} nodes, expected {MOST_NODES} at most")
        nodes = {name: models.get(name) or _function(name, settings) for name in dag.nodes}
    except ValueError as e:
        raise _unparsable(str(e)) from e
    return WorkflowSpec(settings, nodes, dag, tuple(name for name in models if name not in nodes))


def _models(said: Mapping[str, Any]) -> tuple[NodeSettings, dict[str, Node]]:
    """Read ``models`` in the order of the document."""
    settings = NodeSettings()
    models = {}
    for key, value in said.items():
        if key in attributes_of(NodeSettings):
            settings = settings.but({key: value})
            continue
        place = f"models.{_name('models', key)}"
        model = mapping(place, value)
        url = model.get("url")
        if url is not None and not (isinstance(url, str) and url):
            raise wrong(f"{place}.url", url, "the name or URL of an archive")
        try:
            models[key] = Node(key, url, settings.but(model))
        except ValueError as e:
            raise ValueError(f"{place}.{e}") from e
    return settings, models


def _function(name: str, settings: NodeSettings) -> Node:
    """Make the node for a name which the graph alone mentions."""
    if not name.isidentifier():
        raise ValueError(f"dag has {name!r:.200}, which is neither in models nor the name of a function")
    return Node(name, None, evolve(settings, min_workers=1, max_workers=1, batch_size=1, max_batch_delay=0))


def _edges(said: Mapping[str, Any]) -> dict[str, list[str]]:
    edges = {}
    for node, after in said.items():
        if after is not None and not (isinstance(after, list) and all(isinstance(each, str) for each in after)):
            raise wrong(f"dag.{node}", after, "a list of names")
        edges[_name("dag", node)] = [_name(f"dag.{node}", each) for each in after or () if each.strip()]
    return edges


def _name(place: str, name: str) -> str:
    if len(name) > _MOST_CHARACTERS or name_flaw(name) is not None:
        expected = f"a name of at most {_MOST_CHARACTERS} characters: {name_flaw(name) or 'it is too long'}"
        raise wrong(place, name, expected)
    return name


def _unparsable(detail: str) -> InvalidWorkflow:
    return InvalidWorkflow("Failed to parse yaml.").because(detail)
