# SPDX-License-Identifier: Apache-2.0
"""
Read and validate an archive's manifest, ``MAR-INF/MANIFEST.json``.

See ``docs/torchserve/archives_workers_handlers.md`` §1.2.  The manifest is optional: without one, a directory is a
model of version 1.0 that names neither itself nor a handler.  All files that a manifest names must be inside the model
directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from attrs.validators import in_, instance_of, min_len

from twisted_serve.archives.documents import DocumentError, load_json
from twisted_serve.archives.safe_paths import confined, confined_handler
from twisted_serve.errors import InvalidModel

MANIFEST_PATH = "MAR-INF/MANIFEST.json"

RUNTIMES = ("python", "python3", "LSP")

# Keys for names of files in the model directory.  ``sourceVocab`` occurs in old archives.
_FILE_ENTRIES = ("serializedFile", "modelFile", "requirementsFile", "configFile", "sourceVocab")


@frozen
class Manifest:
    """
    The contents of a manifest.

    :ivar handler: ``file.py``, ``file:function`` or the name of a built-in handler.
    :ivar serialized_file: The weights; a path relative to the model directory, like all files here.
    :ivar raw: The document as it is on disk, for the handler; empty without a manifest.
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
    :raise InvalidModel: if the manifest is malformed, lacks its ``model`` entry, or names a file outside ``model_dir``
        (by an absolute path, by ``..`` or by a link).
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
    """Return an entry of the manifest as text; an empty one counts as absent."""
    value = model.get(entry)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # TorchServe reads ``"modelVersion": 2`` as text, and such archives exist.
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise InvalidModel(f"Manifest entry {entry} is {value!r:.200}, expected a string.")
    return value or None


def _unparsable(detail: str | None) -> InvalidModel:
    # TorchServe's text, which still names the file of its own precursor.
    return InvalidModel(f"Failed to parse signature.json. ({detail})")
