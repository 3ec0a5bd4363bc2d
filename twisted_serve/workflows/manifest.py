# SPDX-License-Identifier: Apache-2.0
"""
Read and validate a workflow's manifest, ``WAR-INF/MANIFEST.json``.

See ``docs/torchserve/grpc_workflows_kserve.md`` §3.1; unlike a model's manifest, it is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from twisted_serve.archives.documents import DocumentError, load_json
from twisted_serve.archives.safe_paths import confined
from twisted_serve.errors import InvalidModel, InvalidWorkflow

MANIFEST_PATH = "WAR-INF/MANIFEST.json"


@frozen
class WorkflowManifest:
    """
    The contents of a workflow's manifest.

    :ivar spec_file: The specification, in the archive.
    :ivar handler: The Python file with the workflow's functions, in the archive; ``None`` for none.
    """

    workflow_name: str
    spec_file: str
    handler: str | None = None


def read_manifest(directory: Path, links: bool = False) -> WorkflowManifest:
    """
    Read the manifest of an unpacked archive.

    :param links: Whether symbolic links in ``directory`` may lead out of it.
    :raise InvalidWorkflow: if the manifest is missing, malformed, or names a file outside ``directory``.
    """
    try:
        document = load_json(confined(directory, MANIFEST_PATH, MANIFEST_PATH, links))
    except (DocumentError, OSError) as e:
        detail = e.strerror if isinstance(e, OSError) else str(e)
        raise InvalidWorkflow(f"Failed to parse {MANIFEST_PATH}.").because(str(detail)) from e
    except InvalidModel as e:
        raise InvalidWorkflow(e.message) from e
    if not isinstance(document, dict) or not isinstance(document.get("workflow"), dict):
        raise InvalidWorkflow("Missing Workflow entry in manifest file.")
    workflow = document["workflow"]
    manifest = WorkflowManifest(
        _required(workflow, "workflowName", "Workflow name is not defined."),
        _required(workflow, "specFile", "Workflow specification file is not defined."),
        _text(workflow, "handler"),
    )
    _required(document, "archiverVersion", "Workflow archive version is not defined.")
    _required(document, "createdOn", "Workflow archive createdOn is not defined.")
    try:
        for entry, name in (("specFile", manifest.spec_file), ("handler", manifest.handler)):
            if name is not None:
                confined(directory, entry, name, links)
    except InvalidModel as e:
        raise InvalidWorkflow(e.message) from e
    return manifest


def _required(entries: Mapping[str, Any], entry: str, message: str) -> str:
    value = _text(entries, entry)
    if value is None:
        raise InvalidWorkflow(message)
    return value


def _text(entries: Mapping[str, Any], entry: str) -> str | None:
    """Return an entry of the manifest; an empty one counts as absent."""
    value = entries.get(entry)
    if value is not None and not isinstance(value, str):
        raise InvalidWorkflow(f"Manifest entry {entry} is {value!r:.200}, expected a string.")
    return value or None
