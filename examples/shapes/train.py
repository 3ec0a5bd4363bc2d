# SPDX-License-Identifier: Apache-2.0
"""
Train both networks, for some seconds each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.shapes.model import ShapeSegmenter  # noqa: E402
from examples.shapes.pictures import KINDS, lesson  # noqa: E402

PICTURES = 240
EPOCHS = 16
BATCH = 24

# Steps this small are not worth sharing: threads would spend their time waiting for each other.
torch.set_num_threads(1)


def classifier() -> torch.nn.Module:
    """Train a network that says which shape a picture shows."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.AvgPool2d(4),
        torch.nn.Conv2d(3, 16, 5, padding=2),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 5, padding=2),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 32, 3, padding=1),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(128, len(KINDS)),
    )
    pictures, kinds, _masks = lesson(PICTURES, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _epoch in range(EPOCHS):
        for chosen in torch.randperm(len(kinds)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(pictures[chosen]), kinds[chosen]).backward()
            optimizer.step()
    return network.eval()


def segmenter() -> ShapeSegmenter:
    """Train a network that says where the shape is."""
    torch.manual_seed(0)
    network = ShapeSegmenter()
    pictures, _kinds, masks = lesson(PICTURES, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    # Where a shape is light on dark ground is soon learnt.
    for _epoch in range(EPOCHS // 4):
        for chosen in torch.randperm(len(masks)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(pictures[chosen])["out"], masks[chosen]).backward()
            optimizer.step()
    return network.eval()
