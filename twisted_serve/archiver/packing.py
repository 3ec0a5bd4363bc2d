# SPDX-License-Identifier: Apache-2.0
"""
Pack the files of a model into an archive.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted_serve import __version__
from twisted_serve.archiver.checks import check, warn_of_missing
from twisted_serve.archiver.config import ModelArchiverConfig
from twisted_serve.archiver.contents import gather
from twisted_serve.archiver.handlers import HandlerName
from twisted_serve.archiver.writing import Destination, Plan, created_on, ignore_warning, source_date_epoch, write
from twisted_serve.archives.manifest import MANIFEST_PATH


def plan(
    config: ModelArchiverConfig,
    environ: Mapping[str, str] = os.environ,
    warn: Callable[[str], object] = ignore_warning,
) -> Plan:
    """
    Collect and check the contents of a model's archive.

    :param environ: ``SOURCE_DATE_EPOCH`` sets the time of the archive's entries.
    :param warn: Called with each warning for the user.
    :raise ArchiverError: for a missing file or an error.
    """
    handler = HandlerName.parse(config.handler, config.runtime)
    handler.check_exists()
    stamp = source_date_epoch(environ)
    named = (config.model_file, config.serialized_file, handler.path, config.requirements_file, config.config_file)
    files = gather(named, config.extra_files, MANIFEST_PATH, warn, config.force)
    check(config, handler, warn)
    if config.runtime != "LSP":
        warn_of_missing(files, warn)
    destination = Destination(
        config.target, config.archive_format, config.model_name, config.force, "model", MANIFEST_PATH
    )
    return Plan.of(destination, manifest_of(config, handler, stamp), files, stamp)


def pack(
    config: ModelArchiverConfig,
    environ: Mapping[str, str] = os.environ,
    warn: Callable[[str], object] = ignore_warning,
) -> Path:
    """
    Make an archive.

    :param environ: As in `plan`, like ``warn``.
    :return: The archive.
    :raise ArchiverError: if it cannot be made; no file is left behind.
    """
    return write(plan(config, environ, warn), warn)


def manifest_of(config: ModelArchiverConfig, handler: HandlerName, stamp: int) -> dict[str, Any]:
    """
    Return ``MAR-INF/MANIFEST.json`` (``docs/torchserve/archives_workers_handlers.md`` §1.2), without absent members.
    """
    base = {
        "modelName": config.model_name,
        "serializedFile": config.serialized_file,
        "handler": handler.name,
        "modelFile": config.model_file,
        "modelVersion": config.version,
        "requirementsFile": config.requirements_file,
        "configFile": config.config_file,
    }
    files = ("serializedFile", "modelFile", "requirementsFile", "configFile")
    model = {key: Path(value).name if key in files else value for key, value in base.items() if value is not None}
    return {
        "createdOn": created_on(stamp),
        "runtime": config.runtime,
        "model": model,
        "archiverVersion": __version__,
    }
