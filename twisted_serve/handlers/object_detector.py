# SPDX-License-Identifier: Apache-2.0
"""
Detect objects in images: the built-in handler ``object_detector``.
"""

from __future__ import annotations

from typing import Any

from twisted_serve.handlers.image_transforms import Compose, ToRGB, ToTensor
from twisted_serve.handlers.model_files import map_class_to_label
from twisted_serve.handlers.timer import timed
from twisted_serve.handlers.vision import VisionHandler

__all__ = ["ObjectDetector"]


class ObjectDetector(VisionHandler):
    """
    Returns the objects in each image, ``{label: [x1, y1, x2, y2], "score": score}``, coordinates in pixels.

    The model gets a float32 tensor of shape (N, 3, H, W) with values from 0 to 1. All images of a batch must have
    the same size.

    :cvar threshold: The lowest score of objects to return.
    """

    threshold = 0.5
    image_processing = Compose([ToRGB(), ToTensor()])

    @timed
    def postprocess(self, data: Any) -> Any:
        """
        Return the objects whose score reaches the threshold.

        :param data: The output of torchvision's detectors: N dicts with the tensors ``boxes`` (float, shape (K, 4)),
            ``labels`` (int64, shape (K,)) and ``scores`` (float, shape (K,)) for K objects.
        :return: A list of N lists of dicts.
        :raise KeyError: if ``index_to_name.json`` has no label for a class.
        """
        return [self._objects(each) for each in data]

    def _objects(self, found: Any) -> list[dict[str, Any]]:
        columns = (found[name].tolist() for name in ("boxes", "labels", "scores"))
        return [
            {**map_class_to_label([[box]], self.mapping, [[label]])[0], "score": score}
            for box, label, score in zip(*columns, strict=True)
            if score >= self.threshold
        ]
