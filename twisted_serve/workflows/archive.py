# SPDX-License-Identifier: Apache-2.0
"""
Read an unpacked workflow: manifest, specification and handler.

Blocking: call in a thread.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from twisted_serve.errors import InvalidWorkflow
from twisted_serve.workflows.manifest import WorkflowManifest, read_manifest
from twisted_serve.workflows.spec import WorkflowSpec, load_spec


@frozen
class Workflow:
    """The contents of a workflow's archive."""

    directory: Path
    manifest: WorkflowManifest
    spec: WorkflowSpec


def read_workflow(directory: Path, links: bool = False) -> Workflow:
    """
    Read an unpacked archive.

    :param links: Whether symbolic links in ``directory`` may lead out of it.
    :raise InvalidWorkflow: if it is not a workflow that can be run, naming the error.
    :raise InvalidDag: as `load_spec`.
    """
    manifest = read_manifest(directory, links)
    spec = load_spec(directory / manifest.spec_file)
    if spec.functions and manifest.handler is None:
        raise InvalidWorkflow(f"The archive has no handler, and these nodes need one: {', '.join(spec.functions)}.")
    if spec.functions and not (directory / str(manifest.handler)).is_file():
        raise InvalidWorkflow(f"Manifest entry handler is {manifest.handler!r:.200}, and there is no such file.")
    return Workflow(directory, manifest, spec)
