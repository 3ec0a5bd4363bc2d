# SPDX-License-Identifier: Apache-2.0
"""
Read samples in Prometheus' text format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# TorchServe's form has a comma after the last label.
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})? (\S+)(?: \S+)?")
_LABEL = re.compile(r"([a-zA-Z_]\w*)=\"((?:[^\"\\]|\\.)*)\",?")
_ESCAPED = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """One value of a metric."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples_of(text: str) -> Iterator[Sample]:
    """Yield the samples of a text; lines that are none are left out."""
    for line in text.split("\n"):
        found = None if line.startswith("#") else _SAMPLE.fullmatch(line)
        if found is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        yield Sample(found[1], {name: _plain(text) for name, text in _LABEL.findall(found[2] or "")}, value)


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text) if "\\" in text else text
