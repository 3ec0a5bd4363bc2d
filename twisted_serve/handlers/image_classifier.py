# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``image_classifier``: what is in the picture.
"""

from __future__ import annotations

from typing import Any

from twisted_serve.handlers.image_transforms import IMAGENET
from twisted_serve.handlers.model_files import map_class_to_label
from twisted_serve.handlers.timer import timed
from twisted_serve.handlers.vision import VisionHandler

__all__ = ["ImageClassifier"]


class ImageClassifier(VisionHandler):
    """
    Answers each image with its likeliest classes, ``{label: probability}``.

    :cvar topk: How many classes; all of them, if the model has fewer.
    """

    topk = 5
    image_processing = IMAGENET

    def set_max_result_classes(self, topk: int) -> None:
        """Set how many classes are answered."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Get how many classes are answered."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> Any:
        """Make the answers of the model's scores, likeliest first."""
        import torch  # noqa: PLC0415

        scores = torch.softmax(data, dim=1)
        probabilities, classes = torch.topk(scores, min(self.topk, scores.shape[1]), dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
