# SPDX-License-Identifier: Apache-2.0
"""Tests for the built-in image handlers, with small real models; what they must answer is calculated in NumPy here."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.modules import replace_modules
from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Job, Part, Predicted, PredictFailed

np = pytest.importorskip("numpy", reason="numpy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

WEIGHTS = [[1.0, 0.5, -1.0], [0.0, 2.0, 0.25], [-0.5, 0.125, 3.0], [0.75, -2.0, 0.0]]

# A class's score is what its row of the weights makes of the channels' means.
CLASSIFIER = f"""
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)) @ torch.tensor({WEIGHTS}).T
"""

SEGMENTER = f"""
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return {{"out": torch.einsum("nchw,kc->nkhw", x, torch.tensor({WEIGHTS}))}}
"""

# It says that the left half of each picture is a thing of class 1, as sure as the picture is bright.
DETECTOR = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        assert (x.min() >= 0) and (x.max() <= 1)
        n, _, height, width = x.shape
        boxes = torch.tensor([[0.0, 0.0, width / 2, height], [1.0, 1.0, 2.0, 2.0]])
        return [
            {"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.stack([each.mean(), torch.tensor(0.5)])}
            for each in x
        ]
"""


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def normalized(pixels: Any) -> Any:
    """Crop a square of 256 pixels, and normalize it as ImageNet's models expect: channels first."""
    cut = pixels[16:240, 16:240].astype(np.float64) / 255
    return ((cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)


def softmax(scores: Any) -> Any:
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


class VisionTestCase(SynchronousTestCase):
    """An archive with a model and a built-in handler."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        self.noise = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        self.dark = (self.noise // 4).astype(np.uint8)
        self.addCleanup(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)

    def _serve(self, model: str, handler: str, **settings: Any) -> LocalWorker:
        (self.dir / "model.py").write_text(model)
        manifest = {"model": {"modelFile": "model.py"}}
        context = local_worker(self.dir, handler, manifest=manifest, **settings)
        worker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return worker

    def _answers(self, worker: LocalWorker, *parts: Part) -> list[Any]:
        return [json.loads(item.body) for item in worker.predict(*parts)]

    def _failure(self, worker: LocalWorker, part: Part, **headers: str) -> tuple[int, str]:
        answer = worker.answer(Job("r", headers, [part]))
        assert isinstance(answer, PredictFailed), answer
        return answer.code, answer.message


class ImageClassifierTests(VisionTestCase):
    """``image_classifier``."""

    def _expected(self, pixels: Any) -> Any:
        return softmax(np.array(WEIGHTS) @ normalized(pixels).mean(axis=(1, 2)))

    def _check(self, answer: dict[str, float], expected: Any) -> None:
        order = np.argsort(-expected)[: len(answer)]
        self.assertEqual(list(answer), [str(each) for each in order])
        np.testing.assert_allclose(list(answer.values()), expected[order], rtol=1e-4)

    def test_batch(self) -> None:
        """Each image of a batch gets the probabilities of its classes, likeliest first."""
        worker = self._serve(CLASSIFIER, "image_classifier")
        parts = [Part("data", "image/png", png(each)) for each in (self.noise, self.dark)]
        answers = self._answers(worker, *parts)
        for answer, pixels in zip(answers, (self.noise, self.dark), strict=True):
            self.assertEqual(len(answer), 4)
            self._check(answer, self._expected(pixels))
        self.assertNotEqual(list(answers[0].values()), list(answers[1].values()))

    def test_resized(self) -> None:
        """A photograph of another size is scaled first."""
        big = np.kron(self.noise, np.ones((2, 2, 1), dtype=np.uint8))
        worker = self._serve(CLASSIFIER, "image_classifier")
        (answer,) = self._answers(worker, Part("body", "", png(big)))
        # Each pixel doubled and averaged with half of its neighbours: the means of the channels stay, nearly.
        np.testing.assert_allclose([answer[str(each)] for each in range(4)], self._expected(self.noise), atol=2e-3)

    def test_forms(self) -> None:
        """An image may be raw, in Base64, or the numbers of a tensor."""
        worker = self._serve(CLASSIFIER, "image_classifier")
        encoded = png(self.noise)
        tensor = normalized(self.noise).round(4).tolist()
        answers = self._answers(
            worker,
            Part("body", "image/png", encoded),
            Part("body", "text/plain", base64.encodebytes(encoded)),
            Part("data", "application/json", json.dumps(base64.b64encode(encoded).decode()).encode()),
            Part("data", "application/json", json.dumps(tensor).encode()),
        )
        for answer in answers:
            self._check(answer, self._expected(self.noise))

    def test_labels(self) -> None:
        """Classes are called what ``index_to_name.json`` calls them."""
        names = {str(each): [f"n{each}", f"thing {each}"] for each in range(4)}
        (self.dir / "index_to_name.json").write_text(json.dumps(names))
        worker = self._serve(CLASSIFIER, "image_classifier")
        (answer,) = self._answers(worker, Part("body", "", png(self.noise)))
        order = np.argsort(-self._expected(self.noise))
        self.assertEqual(list(answer), [f"thing {each}" for each in order])

    def test_subclass(self) -> None:
        """A handler of the archive chooses its own transform and number of classes."""
        (self.dir / "h.py").write_text(
            "import numpy as np, torch\n"
            "from ts.torch_handler.image_classifier import ImageClassifier\n"
            "class Mine(ImageClassifier):\n"
            "    topk = 2\n"
            "    def image_processing(self, image):\n"
            "        return torch.tensor(np.array(image.convert('L'), dtype='float32'))[None].repeat(3, 1, 1) / 255\n"
        )
        worker = self._serve(CLASSIFIER, "h.py")
        (answer,) = self._answers(worker, Part("body", "", png(self.noise)))
        grey = np.asarray(Image.fromarray(self.noise).convert("L"), float).mean() / 255
        self.assertEqual(len(answer), 2)
        self._check(answer, softmax(np.array(WEIGHTS) @ [grey, grey, grey]))

    def test_number_of_classes(self) -> None:
        """How many classes are answered can be set."""
        from twisted_serve.handlers.image_classifier import ImageClassifier

        handler = ImageClassifier()
        self.assertEqual(handler.get_max_result_classes(), 5)
        handler.set_max_result_classes(1)
        self.assertEqual(handler.get_max_result_classes(), 1)
        self.assertEqual(handler.postprocess(torch.tensor([[0.0, 50.0], [50.0, 0.0]])), [{"1": 1.0}, {"0": 1.0}])

    def test_kinds_of_images(self) -> None:
        """Grey images, palettes and transparency are classified as what one sees."""
        worker = self._serve(CLASSIFIER, "image_classifier")
        grey = Image.fromarray(self.noise).convert("L")
        files = []
        for image in (grey, grey.convert("RGB"), grey.convert("RGBA"), grey.convert("P")):
            files.append(io.BytesIO())
            image.save(files[-1], "PNG")
        answers = self._answers(worker, *(Part("body", "", each.getvalue()) for each in files))
        for answer in answers[1:]:
            self.assertEqual(answer, answers[0])

    def test_bad_input(self) -> None:
        """An input that is not an image is the client's error, and the message gives the reason."""
        worker = self._serve(CLASSIFIER, "image_classifier")
        whole = png(self.noise)
        for part, message in (
            (Part("body", "", b"GIF89a"), "the input is no image that Pillow knows"),
            (Part("body", "", b"hello"), "the input is no image that Pillow knows"),
            (Part("body", "", whole[: len(whole) // 2]), "the image cannot be read"),
            (Part("body", "text/plain", b"hello!"), "the input is a string, but not an image in Base64"),
            (Part("body", "application/json", b'{"a": [1]}'), "the input is neither an image nor an array of numbers"),
            (Part("body", "application/json", b"[[1, 2], [3]]"), "the input is neither an image nor an array"),
            (Part("body", "", b""), "the input is no image that Pillow knows"),
            (Part("other", "", whole), "the request has neither data nor body"),
        ):
            code, said = self._failure(worker, part)
            self.assertEqual((code, said[: len(message)]), (400, message))

    def test_bomb(self) -> None:
        """A small file that would be a huge image is refused before it takes the memory."""
        worker = self._serve(CLASSIFIER, "image_classifier")
        Image.MAX_IMAGE_PIXELS = 1000
        part = Part("body", "", png(np.zeros((60, 60, 3), dtype=np.uint8)))
        self.assertEqual(self._failure(worker, part), (400, "the image has more than 2000 pixels"))

    def test_no_limit(self) -> None:
        """``limit_max_image_pixels=false`` lets images of any size in."""
        Image.MAX_IMAGE_PIXELS = 1000
        worker = self._serve(CLASSIFIER, "image_classifier", limit_max_image_pixels=False)
        worker.predict(Part("body", "", png(np.zeros((60, 60, 3), dtype=np.uint8))))
        self.assertIsNone(Image.MAX_IMAGE_PIXELS)

    def test_explain(self) -> None:
        """Captum's integrated gradients explain an answer, for the class the client asks for."""
        asked: list[Any] = []

        class IntegratedGradients:
            def __init__(self, model: Any) -> None:
                self.model = model

            def attribute(self, tensor: Any, target: Any, n_steps: int) -> Any:
                asked.append((tuple(tensor.shape), target, n_steps))
                return self.model(tensor)

        attr = SimpleNamespace(IntegratedGradients=IntegratedGradients)
        replace_modules(self, {"captum": SimpleNamespace(attr=attr), "captum.attr": attr})
        worker = self._serve(CLASSIFIER, "image_classifier")
        job = Job(
            "r", {"explain": "True"}, [Part("data", "", png(self.noise)), Part("target", "application/json", b"2")]
        )
        answer = worker.answer(job)
        assert isinstance(answer, Predicted), answer
        self.assertEqual(asked, [((1, 3, 224, 224), 2, 15)])
        expected = np.array(WEIGHTS) @ normalized(self.noise).mean(axis=(1, 2))
        np.testing.assert_allclose(json.loads(answer.items[0].body), expected, rtol=1e-3)

    def test_no_captum(self) -> None:
        """Without Captum an explanation is refused, and a prediction is not."""
        replace_modules(self, {"captum": None, "captum.attr": None})
        worker = self._serve(CLASSIFIER, "image_classifier")
        part = Part("data", "", png(self.noise))
        self.assertEqual(len(worker.predict(part)), 1)
        code, message = self._failure(worker, part, explain="True")
        self.assertEqual((code, message), (501, "explanations need the package captum, which is not installed"))


class ImageSegmenterTests(VisionTestCase):
    """``image_segmenter``."""

    def test_batch(self) -> None:
        """Each pixel gets its class and how likely that is."""
        worker = self._serve(SEGMENTER, "image_segmenter")
        pictures = (self.noise, self.dark)
        answers = self._answers(worker, *(Part("body", "", png(each)) for each in pictures))
        for answer, pixels in zip(answers, pictures, strict=True):
            expected = softmax(np.einsum("kc,chw->khw", np.array(WEIGHTS), normalized(pixels)))
            found = np.array(answer)
            self.assertEqual(found.shape, (224, 224, 2))
            np.testing.assert_allclose(found[..., 1], expected.max(axis=0), rtol=1e-4)
            # Where two classes are as likely the order of additions decides.
            clear = np.diff(np.sort(expected, axis=0)[-2:], axis=0)[0] > 1e-5
            self.assertTrue((found[..., 0] == expected.argmax(axis=0))[clear].all())
            self.assertGreater(clear.mean(), 0.99)


class ObjectDetectorTests(VisionTestCase):
    """``object_detector``."""

    def test_batch(self) -> None:
        """Each image gets the boxes of what is at least half certain, under the names of their classes."""
        names = {"object_type_names": ["background", "left half", "dot"]}
        (self.dir / "index_to_name.json").write_text(json.dumps(names))
        worker = self._serve(DETECTOR, "object_detector")
        bright = (255 - self.noise // 4).astype(np.uint8)
        answers = self._answers(worker, *(Part("body", "", png(each)) for each in (bright, self.dark)))
        self.assertEqual([list(each) for each in answers[0]], [["left half", "score"], ["dot", "score"]])
        self.assertEqual(answers[0][0]["left half"], [0.0, 0.0, 128.0, 256.0])
        self.assertAlmostEqual(answers[0][0]["score"], (bright / 255).mean(), places=4)
        self.assertEqual(answers[1], [{"dot": [1.0, 1.0, 2.0, 2.0], "score": 0.5}])

    def test_threshold(self) -> None:
        """A subclass may be content with less certainty; without names a class's number is its name."""
        (self.dir / "h.py").write_text(
            "from ts.torch_handler.object_detector import ObjectDetector\n"
            "class Lenient(ObjectDetector):\n"
            "    threshold = 0.0\n"
        )
        worker = self._serve(DETECTOR, "h.py")
        (answer,) = self._answers(worker, Part("body", "", png(self.dark)))
        self.assertEqual([next(iter(each)) for each in answer], ["1", "2"])
