# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``image_segmenter``: what each pixel of the picture belongs to.
"""

from __future__ import annotations

from typing import Any

from twisted_serve.handlers.image_transforms import IMAGENET
from twisted_serve.handlers.timer import timed
from twisted_serve.handlers.vision import VisionHandler

__all__ = ["ImageSegmenter"]


class ImageSegmenter(VisionHandler):
    """Answers each image with rows of pixels, each pixel ``[class, probability]``."""

    image_processing = IMAGENET

    @timed
    def postprocess(self, data: Any) -> Any:
        """Make the answers of the model's scores, which torchvision's models call ``out``."""
        import torch  # noqa: PLC0415

        scores = data["out"] if isinstance(data, dict) else data
        probabilities, classes = torch.max(torch.softmax(scores, dim=1), dim=1)
        return torch.stack([classes.to(scores.dtype), probabilities], dim=3).tolist()
