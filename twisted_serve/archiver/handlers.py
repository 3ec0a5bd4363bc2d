# SPDX-License-Identifier: Apache-2.0
"""
Resolve a handler's name to the file to pack and the name for the manifest.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path

from attrs import frozen

from twisted_serve.archiver.config import ArchiverError

#: Built-in handlers, which are not packed (``docs/torchserve/archives_workers_handlers.md`` §1.3).
BUILT_IN = frozenset(
    {
        "base_handler",
        "dali_image_classifier",
        "image_classifier",
        "image_segmenter",
        "object_detector",
        "text_classifier",
        "trt_llm_handler",
        "vllm_handler",
    }
)

_BUILT_IN_CPP = frozenset({"BaseHandler", "TorchScriptHandler"})

# Minimum similarity ratio of a name that is suggested.
_SIMILARITY_CUTOFF = 0.75

_LIBRARY = ".dylib" if sys.platform == "darwin" else ".so"


@frozen
class HandlerName:
    """
    A handler.

    :ivar name: The name for the manifest: without a directory.
    :ivar path: The file to pack; ``None`` for a built-in handler.
    :ivar function: The entry point within the file; ``None`` for a class, or for ``handle``.
    """

    name: str
    path: Path | None = None
    function: str | None = None

    @classmethod
    def parse(cls, text: str, runtime: str) -> HandlerName:
        """
        Parse a handler's name; ``runtime`` decides whether handlers are Python modules or libraries (``LSP``).

        A file with exactly this name, colon included, takes precedence.
        """
        if runtime == "LSP":
            place, _, function = text.partition(":")
            if place in _BUILT_IN_CPP:
                return cls(text)
            path = Path(place + _LIBRARY)
            return cls(text[len(place) - len(Path(place).name) :], path, function or None)
        if text in BUILT_IN:
            return cls(text)
        place, colon, function = text.rpartition(":")
        if not colon or "/" in function:
            place, function = text, ""
        base = Path(place).name
        path = Path(place if place.endswith(".py") else f"{place}.py")
        return cls(f"{base}:{function}" if function else base, path, function or None)

    def check_exists(self) -> None:
        """
        Check that the handler is built in, or that something is at its path.

        :raise ArchiverError: if not, with the most similar built-in handler or Python file of the directory.
        """
        if self.path is None or self.path.exists():
            return
        files = {each.name: str(each) for each in self.path.parent.glob("*.py")} if self.path.suffix == ".py" else {}
        known = {**files, **{name: f"the built-in {name}" for name in BUILT_IN}}
        stems = {name.removesuffix(".py"): shown for name, shown in known.items()}
        near = get_close_matches(self.path.stem, stems, n=1, cutoff=_SIMILARITY_CUTOFF)
        hint = f"; did you mean {stems[near[0]]}?" if near else ""
        raise ArchiverError(f"File does not exist: {self.path}{hint}")
