# SPDX-License-Identifier: Apache-2.0
"""Tests for ``examples/digits``: trained once here, then asked through a worker in this process."""

from __future__ import annotations

import io
import json
import runpy
import struct
import sys
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Item, Part

for _name in ("torch", "sklearn", "PIL"):
    pytest.importorskip(_name, reason=f"{_name} is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@lru_cache
def archive() -> bytes:
    """Train once for all tests."""
    import tempfile

    with tempfile.TemporaryDirectory() as store:
        path: Path = runpy.run_path(str(EXAMPLE / "build.py"))["build"](Path(store))
        return path.read_bytes()


def bomb() -> bytes:
    """Make a PNG of some bytes which says that it has 20000 by 20000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def body(data: bytes) -> Part:
    return Part("body", "", data)


class DigitsTests(SynchronousTestCase):
    """Pictures in, digits out."""

    def setUp(self) -> None:
        self.patch(sys, "path", sys.path[:])
        directory = Path(self.mktemp()).resolve()
        with zipfile.ZipFile(io.BytesIO(archive())) as source:
            source.extractall(directory)
        manifest = json.loads((directory / "MAR-INF" / "MANIFEST.json").read_text())
        context = local_worker(directory, manifest["model"]["handler"], manifest=manifest)
        self.worker: LocalWorker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def _answer(self, item: Item) -> dict[str, Any]:
        self.assertEqual((item.status, item.headers), (200, {"content-type": "application/json"}), item.body)
        answer: dict[str, Any] = json.loads(item.body)
        return answer

    def test_accuracy(self) -> None:
        """Of the images held out from training at least 95 % are read right."""
        train = runpy.run_path(str(EXAMPLE / "train.py"))
        held_out = train["digits"]()[1]
        parts = [body(train["png"](image)) for image in held_out.images]
        self.assertGreaterEqual(len(parts), 50)
        items = [item for start in range(0, len(parts), 16) for item in self.worker.predict(*parts[start : start + 16])]
        pairs = zip(items, held_out.labels.tolist(), strict=True)
        right = sum(self._answer(item)["digit"] == label for item, label in pairs)
        self.assertGreaterEqual(right / len(parts), 0.95)

    def test_sample(self) -> None:
        """The picture beside the example shows a seven; the probabilities are of all ten digits."""
        answer = self._answer(self.worker.predict(body((EXAMPLE / "seven.png").read_bytes()))[0])
        self.assertEqual(answer["digit"], 7)
        self.assertEqual(list(answer["probabilities"]), [str(digit) for digit in range(10)])
        self.assertApproximates(sum(answer["probabilities"].values()), 1, 0.01)

    def test_pictures(self) -> None:
        """Dark on light, in colour, transparent, or as a JPEG, a seven is a seven."""
        from PIL import Image, ImageOps

        with Image.open(EXAMPLE / "seven.png") as original:
            grey = original.convert("L")
        ink = Image.new("RGBA", grey.size, "black")
        ink.putalpha(grey)
        pictures = [
            (ImageOps.invert(grey), "PNG"),
            (grey.convert("RGB"), "PNG"),
            (ink, "PNG"),
            (grey.convert("P"), "PNG"),
            (grey, "JPEG"),
        ]
        for picture, kind in pictures:
            file = io.BytesIO()
            picture.save(file, kind)
            self.assertEqual(
                self._answer(self.worker.predict(body(file.getvalue()))[0])["digit"], 7, (picture.mode, kind)
            )

    def test_not_pictures(self) -> None:
        """What is not a picture, or far too large a one, is the client's error, for that request alone."""
        seven = (EXAMPLE / "seven.png").read_bytes()
        refused = [b"", b"hello", seven[:60], seven[:-40], bomb(), b"GIF89a" + bytes(100)]
        items = self.worker.predict(*(body(each) for each in [seven, *refused]), Part("body", "text/plain", b"text"))
        self.assertEqual(self._answer(items[0])["digit"], 7)
        for item in items[1:]:
            error = json.loads(item.body)
            self.assertEqual((item.status, error["code"], error["type"]), (400, 400, "BadRequestException"))
            self.assertTrue(error["message"].startswith("The body is not a PNG or JPEG picture"), error)
