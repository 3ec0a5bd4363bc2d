# SPDX-License-Identifier: Apache-2.0
"""
This module implements packing: the files of a model become an archive.
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
from twisted_serve.archiver.writing import Destination, Plan, created_on, nobody, stamp_of, write
from twisted_serve.archives.manifest import MANIFEST_PATH


def plan(
    config: ModelArchiverConfig,
    environ: Mapping[str, str] = os.environ,
    warn: Callable[[str], object] = nobody,
) -> Plan:
    """
    Find and check what an archive is made of.

    :param environ: Where ``SOURCE_DATE_EPOCH`` may say which time the archive is of.
    :param warn: Gets what the user should know.
    :raise ArchiverError: for what is missing or wrong.
    """
    handler = HandlerName.parse(config.handler, config.runtime)
    stamp = stamp_of(environ)
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
    warn: Callable[[str], object] = nobody,
) -> Path:
    """
    Make an archive.

    :param environ: See `plan`, as for ``warn``.
    :return: The archive.
    :raise ArchiverError: when there cannot be one; nothing is left then.
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
