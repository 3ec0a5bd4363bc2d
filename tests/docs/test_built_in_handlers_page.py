# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/built_in_handlers.md``: its handlers, loaded and asked as a worker does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Part

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks

CHANNELS = """
import torch

class Channels(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))
"""


@pytest.fixture
def load(read_blocks: ReadBlocks, tmp_path: Path) -> Callable[..., AbstractContextManager[LocalWorker]]:
    """Return the function which loads the page's handler that has a certain line, with a model."""
    pytest.importorskip("torch", reason="torch is not installed")

    def load(line: str, model: str, **settings: Any) -> AbstractContextManager[LocalWorker]:
        [text] = [block.text for block in read_blocks("built_in_handlers.md", "python") if line in block.text]
        (tmp_path / "handler.py").write_text(text)
        (tmp_path / "model.py").write_text(model)
        manifest = {"model": {"modelName": "m", "modelFile": "model.py"}}
        return local_worker(tmp_path, "handler.py", manifest=manifest, **settings)

    return load


def test_all_are_tested(read_blocks: ReadBlocks) -> None:
    """The page has these handlers and no other."""
    assert len(read_blocks("built_in_handlers.md", "python")) == 3


def test_top_two(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The subclass answers two classes; of a red image the first channel is the likeliest."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    file = io.BytesIO()
    image.new("RGB", (300, 260), (255, 128, 0)).save(file, "JPEG")
    with load("class TopTwo", CHANNELS) as worker:
        [item] = worker.predict(Part("data", "image/jpeg", file.getvalue()))
    assert list(json.loads(item.body)) == ["0", "1"]


def test_belt(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The handler in pieces answers each image of a batch at its place."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    files = []
    for colour in ("red", "lime", "blue") * 2:
        files.append(io.BytesIO())
        image.new("RGB", (256, 256), colour).save(files[-1], "PNG")
    with load("class Belt", CHANNELS) as worker:
        items = worker.predict(*(Part("data", "image/png", file.getvalue()) for file in files))
    assert [next(iter(json.loads(item.body))) for item in items] == ["0", "1", "2"] * 2


def test_lines(read_blocks: ReadBlocks, tmp_path: Path) -> None:
    """The envelope makes lines of a body, and of each line that the handler returns."""
    [text] = [block.text for block in read_blocks("built_in_handlers.md", "python") if "class Lines" in block.text]
    (tmp_path / "lines.py").write_text(text)
    (tmp_path / "handler.py").write_text(
        "def handle(data, context):\n    return data and [[line.upper() for line in lines] for lines in data]\n"
    )
    with local_worker(tmp_path, "handler.py", envelope="lines") as worker:
        items = worker.predict(Part("body", "", b"a\nb"), Part("body", "", b"c"))
    assert [item.body for item in items] == [b"A\nB", b"C"]
