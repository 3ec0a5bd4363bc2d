# SPDX-License-Identifier: Apache-2.0
"""
Classify images: the built-in handler ``image_classifier``.
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
    Returns the most probable classes of each image, ``{label: probability}``.

    The model gets a float32 tensor of shape (N, 3, 224, 224), normalized with ImageNet's mean and standard deviation,
    and returns logits of shape (N, C) for C classes.

    :cvar topk: The number of classes to return, at most C.
    """

    topk = 5
    image_processing = IMAGENET

    def set_max_result_classes(self, topk: int) -> None:
        """Set the number of classes to return."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return the number of classes to return."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> Any:
        """
        Apply softmax and return the top classes.

        :param data: Logits, a float tensor of shape (N, C).
        :return: A list of N dicts of label to probability, in descending order of probability.
        :raise KeyError: if ``index_to_name.json`` has no label for a class.
        """
        import torch  # noqa: PLC0415

        scores = torch.softmax(data, dim=1)
        probabilities, classes = torch.topk(scores, min(self.topk, scores.shape[1]), dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
