# SPDX-License-Identifier: Apache-2.0
"""
Parse the specification of a workflow: its nodes with their settings, and their graph.

``docs/torchserve/grpc_workflows_kserve.md`` §3.2 has the grammar.  Settings at the top level of ``models`` apply to the
nodes that follow them in the document, and only to these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from twisted_serve.archives.documents import DocumentError, load_yaml
from twisted_serve.archives.fields import attributes_of, integer, mapping, wrong
from twisted_serve.archives.names import name_flaw
from twisted_serve.errors import InvalidWorkflow
from twisted_serve.workflows.dag import Dag

# Each node has at least one worker of its own.
MOST_NODES = 256

# A larger number is a mistake, because there is no delay between attempts.
MOST_RETRIES = 100

# Maximum length of a node's name in characters; it becomes part of a model's name.
_MAX_NAME_LENGTH = 200


@frozen
class NodeSettings:
    """
    The settings of a node.

    :ivar min_workers: Displayed only: a node always has ``max_workers``.
    :ivar max_batch_delay: Milliseconds.
    :ivar retry_attempts: Number of retries after a node failed.
    :ivar timeout: Milliseconds per attempt.
    """

    min_workers: int = integer("min-workers", 0, 1)
    max_workers: int = integer("max-workers", 1, 1)
    batch_size: int = integer("batch-size", 1, 1)
    max_batch_delay: int = integer("max-batch-delay", 0, 50)
    retry_attempts: int = integer("retry-attempts", 0, 1, MOST_RETRIES)
    timeout: int = integer("timeout-ms", 1, 10_000)

    def but(self, values: Mapping[str, Any]) -> NodeSettings:
        """
        Return these settings with some replaced; unknown keys are ignored.

        :raise ValueError: for a value of the wrong type, naming the key.
        """
        known = attributes_of(NodeSettings)
        return evolve(
            self, **{known[key]: value for key, value in values.items() if key in known and value is not None}
        )


@frozen
class Node:
    """
    A model, or a function of the workflow's handler.

    :ivar url: The location of the model's archive; ``None`` for a function.
    """

    name: str
    url: str | None
    settings: NodeSettings


@frozen
class WorkflowSpec:
    """
    The nodes and settings of a workflow.

    :ivar settings: The settings for all nodes.
    :ivar nodes: The nodes of the graph, by name.
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
    Read a specification from a file.

    :raise InvalidWorkflow: if it is invalid, naming the error.
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
    Convert a parsed YAML document to a specification.

    :raise InvalidWorkflow: if it is invalid, naming the error.
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


def _models(entries: Mapping[str, Any]) -> tuple[NodeSettings, dict[str, Node]]:
    """Parse ``models`` in document order."""
    settings = NodeSettings()
    models = {}
    for key, value in entries.items():
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
    """Return the node for a name that occurs only in the graph."""
    if not name.isidentifier():
        raise ValueError(f"dag has {name!r:.200}, which is neither in models nor the name of a function")
    return Node(name, None, evolve(settings, min_workers=1, max_workers=1, batch_size=1, max_batch_delay=0))


def _edges(entries: Mapping[str, Any]) -> dict[str, list[str]]:
    edges = {}
    for node, successors in entries.items():
        if successors is not None and not (
            isinstance(successors, list) and all(isinstance(each, str) for each in successors)
        ):
            raise wrong(f"dag.{node}", successors, "a list of names")
        edges[_name("dag", node)] = [_name(f"dag.{node}", each) for each in successors or () if each.strip()]
    return edges


def _name(place: str, name: str) -> str:
    if len(name) > _MAX_NAME_LENGTH or name_flaw(name) is not None:
        expected = f"a name of at most {_MAX_NAME_LENGTH} characters: {name_flaw(name) or 'it is too long'}"
        raise wrong(place, name, expected)
    return name


def _unparsable(detail: str) -> InvalidWorkflow:
    return InvalidWorkflow("Failed to parse yaml.").because(detail)
