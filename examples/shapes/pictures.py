# SPDX-License-Identifier: Apache-2.0
"""
Draw pictures of one shape each, at random, as training data of both networks.
"""

from __future__ import annotations

import io
from functools import cache
from random import Random

import torch
from PIL import Image, ImageDraw

SIZE = 256
KINDS = ("circle", "square", "triangle")


def draw(kind: str, random: Random) -> tuple[Image.Image, Image.Image]:
    """
    Draw a light shape on dark ground.

    :return: The picture, and the mask which is white where the shape is.
    """
    ground = tuple(random.randint(0, 90) for _ in range(3))
    ink = tuple(random.randint(160, 255) for _ in range(3))
    picture, mask = Image.new("RGB", (SIZE, SIZE), ground), Image.new("L", (SIZE, SIZE), 0)
    r = random.randint(35, 70)
    x, y = (random.randint(30 + r, SIZE - 30 - r) for _ in range(2))
    for image, colour in ((picture, ink), (mask, 255)):
        pen = ImageDraw.Draw(image)
        if kind == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        elif kind == "square":
            pen.rectangle((x - r, y - r, x + r, y + r), fill=colour)
        else:
            pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=colour)
    return picture, mask


def png(picture: Image.Image) -> bytes:
    """Write a picture as a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def as_served(picture: Image.Image) -> torch.Tensor:
    """Make ``[3, 224, 224]`` of a picture, as the built-in handlers do."""
    # Of an installed handler library, and not of an archive's worker: so by its own name.
    from twisted_serve.handlers.image_classifier import ImageClassifier  # noqa: PLC0415

    tensor: torch.Tensor = ImageClassifier.image_processing(picture)
    return tensor


@cache
def lesson(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Draw pictures to learn from, or to be examined with.

    :return: Pictures ``[N, 3, 224, 224]``, kinds ``[N]``, masks ``[N, 224, 224]`` of 0 and 1.
    """
    random = Random(seed)
    pictures, kinds, masks = [], [], []
    # What the handlers crop away of a square picture of this size.
    edge = (SIZE - 224) // 2
    for index in range(number):
        kind = index % len(KINDS)
        picture, mask = draw(KINDS[kind], random)
        pictures.append(as_served(picture))
        kinds.append(kind)
        whole = torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8).reshape(SIZE, SIZE)
        masks.append((whole[edge : SIZE - edge, edge : SIZE - edge] > 127).long())
    return torch.stack(pictures), torch.tensor(kinds), torch.stack(masks)
