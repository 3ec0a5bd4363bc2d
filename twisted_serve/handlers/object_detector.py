# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``object_detector``: what is where in the picture.
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
    Answers each image with the objects in it, ``{label: [x1, y1, x2, y2], "score": score}``.

    The images of a batch must have one size.

    :cvar threshold: The score from which on an object is mentioned.
    """

    threshold = 0.5
    image_processing = Compose([ToRGB(), ToTensor()])

    @timed
    def postprocess(self, data: Any) -> Any:
        """Make the answers of what torchvision's detectors return: boxes, labels and scores of each image."""
        return [self._objects(each) for each in data]

    def _objects(self, found: Any) -> list[dict[str, Any]]:
        columns = (found[name].tolist() for name in ("boxes", "labels", "scores"))
        return [
            {**map_class_to_label([[box]], self.mapping, [[label]])[0], "score": score}
            for box, label, score in zip(*columns, strict=True)
            if score >= self.threshold
        ]
