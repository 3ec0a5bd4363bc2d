# SPDX-License-Identifier: Apache-2.0
"""
Define the segmenting network: for each pixel, ground or shape.
"""

from __future__ import annotations

from collections import OrderedDict

import torch


class ShapeSegmenter(torch.nn.Module):
    """From ``[N, 3, 224, 224]`` to ``{"out": [N, 2, 224, 224]}``, as torchvision's segmenting models answer."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = torch.nn.AvgPool2d(2)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 2, 3, padding=1),
        )

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the logits of both classes."""
        small = self.layers(self.shrink(pictures))
        out = torch.nn.functional.interpolate(small, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
        return OrderedDict(out=out)
