# SPDX-License-Identifier: Apache-2.0
"""
Read labels, settings and classes from an archive's files.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

__all__ = ["get_yaml_config", "list_classes_from_module", "load_label_mapping", "map_class_to_label"]

_log = logging.getLogger(__name__)


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """
    Return the classes defined in ``module``, ordered by name; classes that it imports are left out.

    :param parent_class: If given, return only its subclasses.
    """
    return [
        thing
        for _name, thing in inspect.getmembers(module, inspect.isclass)
        if thing.__module__ == module.__name__ and (parent_class is None or issubclass(thing, parent_class))
    ]


def get_yaml_config(yaml_file_path: str | Path) -> Any:
    """
    Load a YAML file with ``yaml.safe_load``: plain data, no tags that construct objects.

    :raise OSError: if the file cannot be read.
    :raise yaml.YAMLError: if the file is not YAML.
    """
    with open(yaml_file_path, encoding="utf-8") as source:
        return yaml.safe_load(source)


def load_label_mapping(mapping_file_path: str | Path) -> dict[str, str] | None:
    """
    Read ``index_to_name.json``: class index to label.

    If a value is a list, the label is its last item (ImageNet's ``[id, name]``); the items of
    ``{"object_type_names": [...]}`` are numbered from 0 (``docs/torchserve/archives_workers_handlers.md`` §7.6).

    :return: The mapping, or ``None`` if the file does not exist.
    :raise ValueError: if the file is not JSON, or not a mapping to strings.
    """
    path = Path(mapping_file_path)
    if not path.is_file():
        _log.warning("%s is missing. Inference output will not include class name.", path.name)
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} must hold a JSON object of class index to name, not {type(found).__name__}")
    if isinstance(found.get("object_type_names"), list):
        found = {str(index): name for index, name in enumerate(found["object_type_names"])}
    mapping = {key: value[-1] if isinstance(value, list) and value else value for key, value in found.items()}
    for key, value in mapping.items():
        if not isinstance(value, str):
            raise ValueError(f"{path.name}: the label of class {key} must be a string, not {value!r}")
    return mapping


def map_class_to_label(
    probs: Sequence[Sequence[float]],
    mapping: Mapping[str, str] | None = None,
    lbl_classes: Sequence[Sequence[Any]] | None = None,
) -> list[dict[str, float]]:
    """
    Convert rows of probabilities to dicts of label to probability.

    :param probs: Nested lists of shape (N, K).
    :param mapping: Class index (as a string) to label; ``None`` to use the index as the label.
    :param lbl_classes: The class indices of ``probs``, of the same shape (N, K); by default 0, 1, 2 … in each row.
    :return: A list of N dicts, each with the K probabilities in the row's order.
    :raise ValueError: if the shapes differ.
    :raise KeyError: if ``mapping`` has no label for a class.
    """
    rows: Sequence[Sequence[Any]] = [range(len(row)) for row in probs] if lbl_classes is None else lbl_classes
    return [
        {(str(index) if mapping is None else mapping[str(index)]): p for index, p in zip(classes, row, strict=True)}
        for classes, row in zip(rows, probs, strict=True)
    ]
