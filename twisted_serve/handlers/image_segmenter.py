# SPDX-License-Identifier: Apache-2.0
"""
Classify each pixel of images: the built-in handler ``image_segmenter``.
"""

from __future__ import annotations

from typing import Any

from twisted_serve.handlers.image_transforms import IMAGENET
from twisted_serve.handlers.timer import timed
from twisted_serve.handlers.vision import VisionHandler

__all__ = ["ImageSegmenter"]


class ImageSegmenter(VisionHandler):
    """
    Returns rows of pixels for each image, each pixel ``[class, probability]``.

    The model gets a float32 tensor of shape (N, 3, 224, 224), normalized with ImageNet's mean and standard deviation,
    and returns logits of shape (N, C, H, W) for C classes, or a dict with them under ``"out"`` (as torchvision's do).
    """

    image_processing = IMAGENET

    @timed
    def postprocess(self, data: Any) -> Any:
        """
        Apply softmax and return the most probable class of each pixel.

        :param data: Logits, a float tensor of shape (N, C, H, W), or a dict with it under ``"out"``.
        :return: A list of N nested lists of shape (H, W, 2): the class index, as a float, and its probability.
        """
        import torch  # noqa: PLC0415

        scores = data["out"] if isinstance(data, dict) else data
        probabilities, classes = torch.max(torch.softmax(scores, dim=1), dim=1)
        return torch.stack([classes.to(scores.dtype), probabilities], dim=3).tolist()
