# SPDX-License-Identifier: Apache-2.0
"""
Serve in the old style: a class with ``_context``, one object of it, and a function that calls the object.

It is how handlers were written for the predecessor's predecessor, and many archives in use still are.
"""

from __future__ import annotations

import json
import os
from typing import Any


class WordCounter:
    """Counts the words of texts, but for those that the archive says are not to be counted."""

    def __init__(self) -> None:
        self._context: Any = None
        self.initialized = False
        self.ignored: set[str] = set()

    def initialize(self, context: Any) -> None:
        """Read the words that do not count."""
        self._context = context
        directory = context.system_properties.get("model_dir")
        with open(os.path.join(directory, "ignored.json"), encoding="utf-8") as words:
            self.ignored = set(json.load(words))
        self.initialized = True

    def preprocess(self, data: list[dict[str, Any]]) -> list[list[str]]:
        """Split the texts into words."""
        texts = [row.get("data") or row.get("body") or b"" for row in data]
        texts = [
            text.decode("utf-8", "replace") if isinstance(text, (bytes, bytearray)) else str(text) for text in texts
        ]
        return [[word.strip(".,;:!?").lower() for word in text.split()] for text in texts]

    def inference(self, words: list[list[str]]) -> list[int]:
        """Count."""
        return [sum(word not in self.ignored for word in each) for each in words]

    def postprocess(self, counts: list[int]) -> list[dict[str, Any]]:
        """Say whose count it is."""
        return [{"model": self._context.manifest["model"]["modelName"], "words": count} for count in counts]


_service = WordCounter()


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]] | None:
    """Answer a batch; the first call brings no data."""
    if not _service.initialized:
        _service.initialize(context)
    if data is None:
        return None
    return _service.postprocess(_service.inference(_service.preprocess(data)))
