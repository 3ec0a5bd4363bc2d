# SPDX-License-Identifier: Apache-2.0
"""
Pack a workflow's specification, functions and other files into a ``.war`` archive.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, fields, frozen

from twisted_serve import __version__
from twisted_serve.archiver.checks import check_functions, warn_of_missing
from twisted_serve.archiver.config import (
    NAME,
    NAME_EXPECTED,
    ArchiverError,
    check_text,
    optional_text,
    patterns_of,
    text_of,
)
from twisted_serve.archiver.contents import gather
from twisted_serve.archiver.writing import Destination, Plan, created_on, ignore_warning, source_date_epoch, write
from twisted_serve.errors import InvalidDag, InvalidWorkflow
from twisted_serve.workflows.manifest import MANIFEST_PATH
from twisted_serve.workflows.spec import load_spec


@frozen
class WorkflowArchiverConfig:
    """
    The configuration of a workflow archive; names and meaning of the fields are those of TorchServe's flags.

    :ivar spec_file: The specification, YAML.
    :ivar handler: The Python file with the workflow's functions, with or without ``.py``; ``None`` if it has none.
    :ivar extra_files: As in `ModelArchiverConfig`, like all fields that follow.
    :raise ArchiverError: for an invalid name.
    """

    workflow_name: str
    spec_file: str = field(converter=text_of)
    handler: str | None = field(default=None, converter=optional_text)
    extra_files: tuple[str, ...] = field(default=(), converter=patterns_of)
    export_path: Path = field(factory=Path.cwd, converter=Path)
    force: bool = False

    def __attrs_post_init__(self) -> None:
        """Check the values that every server must accept."""
        check_text("workflow name", self.workflow_name, NAME, NAME_EXPECTED)

    @property
    def target(self) -> Path:
        """The path of the archive."""
        return self.export_path / f"{self.workflow_name}.war"

    @property
    def handler_file(self) -> Path | None:
        """The handler's file, with its extension."""
        if self.handler is None:
            return None
        return Path(self.handler if self.handler.endswith(".py") else f"{self.handler}.py")

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> WorkflowArchiverConfig:
        """
        Create a configuration from parsed command line arguments.

        :raise ArchiverError: for an invalid value.
        """
        given = {a.name: getattr(args, a.name) for a in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value is not None})


def plan_workflow(
    config: WorkflowArchiverConfig,
    environ: Mapping[str, str] = os.environ,
    warn: Callable[[str], object] = ignore_warning,
) -> Plan:
    """
    Collect and check the contents of a workflow's archive.

    :param environ: ``SOURCE_DATE_EPOCH`` sets the time of the archive's entries.
    :param warn: Called with each warning for the user.
    :raise ArchiverError: for a missing file or an error.
    """
    stamp = source_date_epoch(environ)
    files = gather((config.spec_file, config.handler_file), config.extra_files, MANIFEST_PATH, warn, config.force)
    _check(config, warn)
    warn_of_missing(files, warn)
    destination = Destination(config.target, "default", config.workflow_name, config.force, "workflow", MANIFEST_PATH)
    return Plan.of(destination, manifest_of(config, stamp), files, stamp)


def pack_workflow(
    config: WorkflowArchiverConfig,
    environ: Mapping[str, str] = os.environ,
    warn: Callable[[str], object] = ignore_warning,
) -> Path:
    """
    Make a workflow's archive.

    :param environ: As in `plan_workflow`, like ``warn``.
    :return: The archive.
    :raise ArchiverError: if it cannot be made; no file is left behind.
    """
    return write(plan_workflow(config, environ, warn), warn)


def manifest_of(config: WorkflowArchiverConfig, stamp: int) -> dict[str, object]:
    """Return ``WAR-INF/MANIFEST.json`` (``docs/torchserve/grpc_workflows_kserve.md`` §3.1)."""
    workflow = {"workflowName": config.workflow_name, "specFile": Path(config.spec_file).name}
    if config.handler_file is not None:
        workflow["handler"] = config.handler_file.name
    return {"createdOn": created_on(stamp), "workflow": workflow, "archiverVersion": __version__}


def _check(config: WorkflowArchiverConfig, warn: Callable[[str], object]) -> None:
    """Check the contents of the specification and the handler; both files exist."""
    try:
        spec = load_spec(Path(config.spec_file))
    except (InvalidWorkflow, InvalidDag) as e:
        raise ArchiverError(f"{config.spec_file}: {e.message} ({e.reason})") from e
    for name in spec.unused:
        warn(f"The model {name} is not in the dag of {config.spec_file}.")
    if config.handler_file is not None:
        check_functions(config.handler_file, spec.functions, warn)
    elif spec.functions:
        raise ArchiverError(f"There is no handler, and these nodes need one: {', '.join(spec.functions)}.")
