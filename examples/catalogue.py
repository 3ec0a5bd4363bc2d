# SPDX-License-Identifier: Apache-2.0
"""
List all examples: how to build each, what to ask it, and its answer in a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parent))

from examples.digits.build import build as build_digits  # noqa: E402
from examples.digits.build import build_export, build_onnx  # noqa: E402
from examples.old_style.build import build as build_old_style  # noqa: E402
from examples.own_requirements.build import build as build_own_requirements  # noqa: E402
from examples.plain_function.build import build as build_plain_function  # noqa: E402
from examples.sentence_embeddings.build import build as build_sentence_embeddings  # noqa: E402
from examples.server import ExampleServer  # noqa: E402
from examples.shapes.build import build_classifier, build_segmenter  # noqa: E402
from examples.storyteller.build import build as build_storyteller  # noqa: E402
from examples.voice_activity.build import build as build_voice_activity  # noqa: E402


class Example(NamedTuple):
    """
    One archive.

    :ivar build: Writes the archive into a model store and returns its path.
    :ivar ask: Asks the model what is worth asking and returns the answer.
    :ivar line: Says the answer in one line.
    """

    name: str
    build: Callable[[Path], Path]
    ask: Callable[[ExampleServer], Any]
    line: Callable[[Any], str] = str


#: Settings that the examples need of their server.
SETTINGS = {
    "install_py_dep_per_model": "true",
    "inference_address": "http://127.0.0.1:0",
    "management_address": "http://127.0.0.1:0",
    "metrics_address": "http://127.0.0.1:0",
}

# The sentences of a pair are the less alike, the further down it stands.
PAIRS = (
    ("A cat is sleeping on the sofa.", "The kitten naps on the couch."),
    ("A cat is sleeping on the sofa.", "My pet likes to lie on the bed."),
    ("A cat is sleeping on the sofa.", "The central bank has raised interest rates."),
)


def _voice_activity(server: ExampleServer) -> Any:
    return server.predict("voice_activity", (HERE / "voice_activity" / "speech.wav").read_bytes(), "audio/wav")


def _digits(model: str) -> Callable[[ExampleServer], Any]:
    seven = (HERE / "digits" / "seven.png").read_bytes()
    return lambda server: server.predict(model, seven, "image/png")


def _similarities(server: ExampleServer) -> list[float]:
    """Ask for all sentences at once, so that they travel in batches, and compare each pair."""
    sentences = list(dict.fromkeys(sentence for pair in PAIRS for sentence in pair))

    def embed(sentence: str) -> list[float]:
        body = json.dumps({"text": sentence}).encode()
        vector: list[float] = server.predict("sentence_embeddings", body, "application/json")["embedding"]
        return vector

    with ThreadPoolExecutor(len(sentences)) as together:
        vectors = dict(zip(sentences, together.map(embed, sentences), strict=True))
    return [sum(a * b for a, b in zip(vectors[one], vectors[other], strict=True)) for one, other in PAIRS]


def _story(server: ExampleServer) -> list[str]:
    """Give the pieces as they came."""
    pieces = server.pieces("/predictions/storyteller", b"once there was", "text/plain")
    return [piece.decode() for piece in pieces]


def _shape(server: ExampleServer) -> Any:
    return server.predict("shape_classifier", (HERE / "shapes" / "circle.png").read_bytes(), "image/png")


def _area(server: ExampleServer) -> float:
    """Ask where the shape is, and give the part of the picture that it takes."""
    rows = server.predict("shape_segmenter", (HERE / "shapes" / "circle.png").read_bytes(), "image/png")
    classes = [pixel[0] for row in rows for pixel in row]
    return sum(classes) / len(classes)


def _length(server: ExampleServer) -> Any:
    asked = json.dumps({"length": 3, "from": "mile", "to": "kilometre"}).encode()
    return server.predict("plain_function", asked, "application/json")


def _figures(server: ExampleServer) -> Any:
    return server.predict("own_requirements", b"1994")


def _words(server: ExampleServer) -> Any:
    return server.predict("old_style", b"The end of the story, and a good one.", "text/plain")


EXAMPLES: Sequence[Example] = (
    Example(
        "voice_activity",
        build_voice_activity,
        _voice_activity,
        lambda answer: ", ".join(f"{each['start']} s to {each['end']} s" for each in answer["segments"]),
    ),
    Example("digits", build_digits, _digits("digits"), lambda answer: f"digit {answer['digit']}"),
    Example("digits_onnx", build_onnx, _digits("digits_onnx"), lambda answer: f"digit {answer['digit']}"),
    Example("digits_export", build_export, _digits("digits_export"), lambda answer: f"digit {answer['digit']}"),
    Example(
        "sentence_embeddings",
        build_sentence_embeddings,
        _similarities,
        lambda answer: "similarities " + " > ".join(f"{each:.3f}" for each in answer),
    ),
    Example(
        "storyteller",
        build_storyteller,
        _story,
        lambda answer: f"{len(answer)} pieces: {''.join(answer).strip()!r}",
    ),
    Example(
        "shape_classifier",
        build_classifier,
        _shape,
        lambda answer: ", ".join(f"{label} {probability:.3f}" for label, probability in answer.items()),
    ),
    Example(
        "shape_segmenter",
        build_segmenter,
        _area,
        lambda answer: f"the shape takes {answer:.1%} of the picture",
    ),
    Example("plain_function", build_plain_function, _length, lambda answer: f"{answer['length']} {answer['unit']}"),
    Example("own_requirements", build_own_requirements, _figures, lambda answer: answer["figures"]),
    Example("old_style", build_old_style, _words, lambda answer: f"{answer['words']} words"),
)
