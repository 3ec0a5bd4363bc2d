# SPDX-License-Identifier: Apache-2.0
"""
This module implements packing: a config becomes an archive that is there as a whole, or not at all.

Everything is written to a new name beside the archive's own; two packers of one model
do not meet, and nobody else's directory is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from attrs import frozen

from twisted_serve import __version__
from twisted_serve.archiver.checks import check
from twisted_serve.archiver.config import ArchiverError, ModelArchiverConfig
from twisted_serve.archiver.contents import gather
from twisted_serve.archiver.forms import EPOCH, LAST_TIME, Entry, write_form
from twisted_serve.archiver.handlers import HandlerName
from twisted_serve.archives.manifest import MANIFEST_PATH
from twisted_serve.archives.publishing import flush, give_name


def _nobody(_warning: str) -> None:
    pass


@frozen
class Plan:
    """
    An archive that could be written: everything has been looked at, and nothing has been made.

    :ivar entries: What goes in, in this order.
    :ivar stamp: The time of all of it, in seconds since 1970.
    """

    config: ModelArchiverConfig
    entries: tuple[Entry, ...]
    stamp: int


def plan(
    config: ModelArchiverConfig,
    environ: Mapping[str, str] = os.environ,
    warn: Callable[[str], object] = _nobody,
) -> Plan:
    """
    Find and check what an archive is made of.

    :param environ: Where ``SOURCE_DATE_EPOCH`` may say which time the archive is of.
    :param warn: Gets what the user should know.
    :raise ArchiverError: for what is missing or wrong.
    """
    handler = HandlerName.parse(config.handler, config.runtime)
    stamp = _stamp(environ)
    files = gather(config, handler, warn)
    check(config, handler, warn)
    manifest = json.dumps(manifest_of(config, handler, stamp), indent=2, ensure_ascii=False).encode()
    entries = (Entry(MANIFEST_PATH, manifest), *(Entry(name, path) for name, path in files.items()))
    if os.path.lexists(config.target):
        _check_replaceable(config)
    return Plan(config, entries, stamp)


def pack(
    config: ModelArchiverConfig,
    environ: Mapping[str, str] = os.environ,
    warn: Callable[[str], object] = _nobody,
) -> Path:
    """
    Make an archive.

    :param environ: See `plan`, as for ``warn``.
    :return: The archive.
    :raise ArchiverError: when there cannot be one; nothing is left then.
    """
    return write(plan(config, environ, warn), warn)


def write(planned: Plan, warn: Callable[[str], object] = _nobody) -> Path:
    """
    Make the archive that was planned.

    :return: The archive.
    :raise ArchiverError: when a file cannot be read or written; nothing is left then.
    """
    config, target = planned.config, planned.config.target
    partial_archive = target.with_name(f".{target.name[:100]}-{uuid4().hex}.part")
    try:
        if not config.export_path.is_dir():
            warn(f"Export directory ({config.export_path}) does not exist. Creating...")
            config.export_path.mkdir(parents=True, exist_ok=True)
        write_form(config.archive_format, partial_archive, config.model_name, list(planned.entries), planned.stamp)
        if os.path.lexists(target):
            _check_replaceable(config)
            warn(f"Overwriting {target} ...")
        _publish(partial_archive, config)
    except OSError as e:
        raise ArchiverError(f"Cannot make {target}: {e}") from e
    finally:
        _remove(partial_archive)
    return target


def manifest_of(config: ModelArchiverConfig, handler: HandlerName, stamp: int) -> dict[str, Any]:
    """
    Make ``MAR-INF/MANIFEST.json`` (``spec/archives_workers_handlers.md`` §1.2); what is not there is not mentioned.
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
        "createdOn": time.strftime("%d/%m/%Y %H:%M:%S", time.gmtime(stamp)),
        "runtime": config.runtime,
        "model": model,
        "archiverVersion": __version__,
    }


def _stamp(environ: Mapping[str, str]) -> int:
    """Take the time that the reproducible-builds convention has for us, within what a zip can say."""
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return EPOCH
    try:
        return min(max(int(text), EPOCH), LAST_TIME)
    except ValueError:
        raise ArchiverError(f"SOURCE_DATE_EPOCH is {text!r:.100}, expected seconds since 1970.") from None


def _check_replaceable(config: ModelArchiverConfig) -> None:
    target = config.target
    if not config.force:
        raise ArchiverError(
            f"{target} already exists.\nPlease specify --force/-f option to overwrite the model archive."
        )
    if config.archive_format == "no-archive":
        # A directory of this name that is something else is not ours to delete.
        if target.is_symlink() or not (target / MANIFEST_PATH).is_file():
            raise ArchiverError(f"{target} exists and is not the directory of a model; it is not overwritten.")
    elif not target.is_file():
        raise ArchiverError(f"{target} exists and is not a file; it is not overwritten.")


def _publish(written: Path, config: ModelArchiverConfig) -> None:
    target = config.target
    try:
        if config.archive_format == "no-archive":
            _publish_directory(written, target)
        elif config.force:
            flush(written)
            os.replace(written, target)
        else:
            give_name(written, target)
    except FileExistsError:
        # Somebody was faster.
        raise ArchiverError(f"{target} already exists.") from None


def _publish_directory(written: Path, target: Path) -> None:
    """Put a directory into the place of another: no single step does that, so what fails is taken back."""
    if not os.path.lexists(target):
        os.rename(written, target)
        return
    old = written.with_suffix(".old")
    os.rename(target, old)
    try:
        os.rename(written, target)
    except BaseException:
        os.rename(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink()
