# SPDX-License-Identifier: Apache-2.0
"""
Define the network: two convolutions and a linear layer, for digits of 8 by 8 pixels.
"""

from __future__ import annotations

import torch


class DigitsNet(torch.nn.Module):
    """From ``[N, 1, 8, 8]``, ink 1 on ground 0, to ``[N, 10]`` logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(512, 10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        logits: torch.Tensor = self.layers(images)
        return logits
