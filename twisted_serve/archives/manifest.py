# SPDX-License-Identifier: Apache-2.0
"""
This module implements the manifest of an archive, ``MAR-INF/MANIFEST.json``: what it says, and that it stays inside.

``docs/torchserve/archives_workers_handlers.md`` §1.2.  The manifest is optional; a directory
without one is a model of version 1.0 without a name or handler of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from attrs.validators import in_, instance_of, min_len

from twisted_serve.archives.confinement import confined, confined_handler
from twisted_serve.archives.documents import DocumentError, load_json
from twisted_serve.errors import InvalidModel

MANIFEST_PATH = "MAR-INF/MANIFEST.json"

RUNTIMES = ("python", "python3", "LSP")

# Entries whose value names a file of the model directory.  ``sourceVocab`` is of old archives.
_FILE_ENTRIES = ("serializedFile", "modelFile", "requirementsFile", "configFile", "sourceVocab")


@frozen
class Manifest:
    """
    What an archive says of itself.

    :ivar handler: ``file.py``, ``file:function`` or the name of a built-in handler.
    :ivar serialized_file: The weights; like all files here, a path relative to the model directory.
    :ivar raw: The document as it is on disk, for the handler; empty for none.
    """

    model_name: str | None = None
    model_version: str = field(default="1.0", validator=[instance_of(str), min_len(1)])
    handler: str | None = None
    serialized_file: str | None = None
    model_file: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None
    runtime: str = field(default="python", validator=in_(RUNTIMES))
    raw: Mapping[str, Any] = field(factory=dict)
    links: bool = False


def read_manifest(model_dir: Path, links: bool = False) -> Manifest:
    """
    Read the manifest of an unpacked archive.

    :param links: Whether symbolic links in ``model_dir`` may lead out of it.
    :raise InvalidModel: if there is one and it is malformed, lacks its ``model`` entry,
        or names a file outside of ``model_dir`` (by an absolute path, by ``..`` or by a link).
    """
    try:
        document = load_json(confined(model_dir, MANIFEST_PATH, MANIFEST_PATH, links))
    except FileNotFoundError:
        return Manifest(links=links)
    except (DocumentError, OSError) as e:
        raise _unparsable(e.strerror if isinstance(e, OSError) else str(e)) from e
    if not isinstance(document, dict):
        raise _unparsable("the document is not an object")
    model = document.get("model")
    if model is None:
        raise InvalidModel("Missing Model entry in manifest file.")
    if not isinstance(model, dict):
        raise _unparsable("model is not an object")
    runtime = document.get("runtime", "python")
    if runtime not in RUNTIMES:
        raise InvalidModel("Runtime is not defined or invalid.")

    for entry in _FILE_ENTRIES:
        if (name := _text(model, entry)) is not None:
            confined(model_dir, entry, name, links)
    handler = _text(model, "handler")
    if handler is not None:
        confined_handler(model_dir, handler, links)
    return Manifest(
        model_name=_text(model, "modelName"),
        model_version=_text(model, "modelVersion") or "1.0",
        handler=handler,
        serialized_file=_text(model, "serializedFile"),
        model_file=_text(model, "modelFile"),
        requirements_file=_text(model, "requirementsFile"),
        config_file=_text(model, "configFile"),
        runtime=runtime,
        raw=document,
        links=links,
    )


def _text(model: Mapping[str, Any], entry: str) -> str | None:
    """Take an entry of the manifest; an empty one counts as absent."""
    value = model.get(entry)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # The predecessor reads ``"modelVersion": 2`` as text, and such archives exist.
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise InvalidModel(f"Manifest entry {entry} is {value!r:.200}, expected a string.")
    return value or None


def _unparsable(detail: str | None) -> InvalidModel:
    # The file's name in this text is the predecessor's, from the days of its own predecessor.
    return InvalidModel(f"Failed to parse signature.json. ({detail})")
