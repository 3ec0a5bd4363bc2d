# SPDX-License-Identifier: Apache-2.0
"""
Tests for `twisted_serve.handlers.image_transforms`, against a resize and a normalization written in NumPy here.

The numbers were also compared, bit for bit, with torchvision 0.28 on random images and modes.
"""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.image_transforms import (
    IMAGENET,
    CenterCrop,
    Compose,
    Normalize,
    Resize,
    ToRGB,
    ToTensor,
    WithinLimit,
)

np = pytest.importorskip("numpy", reason="numpy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def noise(width: int, height: int, seed: int = 0) -> Any:
    """Make an image of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def resized_by_hand(pixels: Any, length: int, axis: int) -> Any:
    """Resize one axis with a triangle filter that is as wide as a new pixel, at least as an old one."""
    scale = pixels.shape[axis] / length
    support = max(scale, 1.0)
    centres = (np.arange(length) + 0.5) * scale
    distances = np.abs(np.arange(pixels.shape[axis])[None, :] + 0.5 - centres[:, None]) / support
    weights = np.clip(1 - distances, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, np.moveaxis(pixels, axis, 0), axes=1), 0, axis)


class TransformTests(SynchronousTestCase):
    """Each step, and all of them."""

    def test_resize(self) -> None:
        """An image is scaled bilinearly, with antialiasing, until its shorter side fits."""
        for width, height, size, expected in (
            (90, 60, 40, (60, 40)),
            (60, 91, 40, (40, 60)),
            (30, 20, 41, (61, 41)),
            (7, 7, 3, (3, 3)),
        ):
            image = noise(width, height)
            resized = Resize(size)(image)
            self.assertEqual(resized.size, expected)
            by_hand = resized_by_hand(resized_by_hand(np.asarray(image, float), expected[0], 1), expected[1], 0)
            # Pillow rounds to bytes after each of the two passes.
            self.assertLessEqual(np.abs(np.asarray(resized, float) - by_hand).max(), 1.01)

    def test_resize_not(self) -> None:
        """An image that fits is not touched."""
        image = noise(256, 300)
        self.assertIs(Resize(256)(image), image)

    def test_crop(self) -> None:
        """The middle is cut out; half a pixel goes to the even neighbour."""
        image = noise(11, 8)
        pixels = np.asarray(image)
        # (11 - 4) / 2 = 3.5 becomes 4, (8 - 4) / 2 = 2.
        self.assertTrue((np.asarray(CenterCrop(4)(image)) == pixels[2:6, 4:8]).all())
        # (11 - 6) / 2 = 2.5 becomes 2, (8 - 6) / 2 = 1.
        self.assertTrue((np.asarray(CenterCrop(6)(image)) == pixels[1:7, 2:8]).all())

    def test_crop_of_small(self) -> None:
        """A smaller image is padded with black first; the larger half of an odd border is on the right and below."""
        image = noise(3, 12)
        expected = np.zeros((6, 6, 3), dtype=np.uint8)
        expected[:, 1:4] = np.asarray(image)[3:9]
        self.assertTrue((np.asarray(CenterCrop(6)(image)) == expected).all())

    def test_tensor(self) -> None:
        """Channels come first, and bytes become numbers from 0 to 1."""
        image = noise(3, 2)
        expected = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        self.assertTrue((ToTensor()(image).numpy() == expected).all())

    def test_tensor_of_modes(self) -> None:
        """Grey images have one channel, black and white ones are 0 and 1, integers and floats stay what they are."""
        grey = noise(3, 2).convert("L")
        self.assertEqual(ToTensor()(grey).shape, (1, 2, 3))
        bits = ToTensor()(grey.convert("1"))
        self.assertEqual((bits.dtype, set(bits.flatten().tolist()) <= {0.0, 1.0}), (torch.float32, True))
        for mode, dtype in (("I", torch.int32), ("F", torch.float32)):
            tensor = ToTensor()(grey.convert(mode))
            self.assertEqual(tensor.dtype, dtype)
            self.assertEqual(tensor.tolist(), [np.asarray(grey).tolist()])
        self.assertEqual(ToTensor()(grey.convert("I").convert("I;16")).dtype, torch.int16)

    def test_normalize(self) -> None:
        """Each channel has its own mean and deviation; the tensor given is not changed."""
        given_tensor = torch.tensor([[[1.0]], [[2.0]]])
        self.assertEqual(Normalize((0.5, 1.0), (0.25, 2.0))(given_tensor).tolist(), [[[2.0]], [[0.5]]])
        self.assertEqual(given_tensor.tolist(), [[[1.0]], [[2.0]]])

    def test_rgb(self) -> None:
        """An image of any kind gets three channels, and one that has them is not touched."""
        image = noise(2, 2)
        self.assertIs(ToRGB()(image), image)
        for mode in ("L", "LA", "P", "RGBA", "CMYK", "1", "I", "F"):
            self.assertEqual(
                ToRGB()(image.convert("L").convert(mode) if mode in "1IF" else image.convert(mode)).mode, "RGB"
            )

    def test_imagenet(self) -> None:
        """ImageNet's transform: the central 224 of 256 pixels, normalized by the well-known means and deviations."""
        image = noise(256, 280)
        pixels = np.asarray(image)[28:252, 16:240].astype(np.float64) / 255
        expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        found = IMAGENET(image)
        self.assertEqual((found.shape, found.dtype), ((3, 224, 224), torch.float32))
        self.assertLess(np.abs(found.numpy() - expected.transpose(2, 0, 1)).max(), 1e-5)

    @given(integers(1, 700), integers(1, 700))
    def test_any_size(self, width: int, height: int) -> None:
        """Of an image of any size remains a square, and its longer side is never rounded up."""
        image = Image.new("RGB", (width, height))
        resized = Resize(32)(image)
        self.assertEqual(min(resized.size), 32)
        self.assertEqual(max(resized.size), 32 * max(width, height) // min(width, height))
        self.assertEqual(CenterCrop(24)(resized).size, (24, 24))

    def test_torchvision(self) -> None:
        """Where torchvision is installed its transforms are used, with our numbers, and our own additions stay."""
        made: list[Any] = []

        def theirs(name: str) -> Any:
            def make(**options: Any) -> Any:
                made.append((name, options))
                return lambda image: f"{name}({image})"

            return make

        def installed(name: str) -> Any:
            return SimpleNamespace(transforms=transforms) if name == "torchvision" else find_spec(name)

        find_spec = importlib.util.find_spec
        names = ("Resize", "CenterCrop", "ToTensor", "Normalize")
        transforms = SimpleNamespace(**{name: theirs(name) for name in names})
        self.patch(importlib.util, "find_spec", installed)
        self.patch(importlib, "import_module", {"torchvision.transforms": transforms}.__getitem__)
        add = Compose([str.upper, *IMAGENET.transforms[2:]])
        self.assertEqual(add("a"), "Normalize(ToTensor(CenterCrop(Resize(A))))")
        self.assertEqual(made[:2], [("Resize", {"size": 256}), ("CenterCrop", {"size": 224})])
        add("b")
        self.assertEqual(len(made), 4)

    def test_torchvision_of_another_torch(self) -> None:
        """A torchvision that cannot be imported is done without, and the log says so."""

        def fail(name: str) -> Any:
            raise RuntimeError("operator torchvision::nms does not exist")

        self.patch(importlib.util, "find_spec", lambda name: "found")
        self.patch(importlib, "import_module", fail)
        with self.assertLogs("twisted_serve.handlers.image_transforms", "WARNING"):
            found = Compose([CenterCrop(2), ToTensor()])(noise(3, 3))
        self.assertEqual(found.shape, (3, 2, 2))

    def test_narrow(self) -> None:
        """An image whose other side would be scaled beyond all measure is refused, unless there is no limit."""
        narrow = Image.new("RGB", (1, 100_000))
        with self.assertRaises(PredictionException) as raised:
            IMAGENET(narrow)
        self.assertEqual(raised.exception.error_code, 400)
        self.assertIn("1 x 100000 pixels is too narrow", raised.exception.message)
        self.patch(Image, "MAX_IMAGE_PIXELS", None)
        self.assertIs(WithinLimit(256)(narrow), narrow)
