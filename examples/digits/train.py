# SPDX-License-Identifier: Apache-2.0
"""
Train on scikit-learn's digits: ``python examples/digits/train.py WEIGHTS``.

It takes some seconds and gives the same network each time on the same machine.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.digits.model import DigitsNet  # noqa: E402

EPOCHS = 30
BATCH = 64

# The data set's pixels go from 0 to 16.
INK = 16


class Digits(NamedTuple):
    """Images ``[N, 8, 8]`` from 0 to 1, and what they show."""

    images: torch.Tensor
    labels: torch.Tensor


def digits() -> tuple[Digits, Digits]:
    """Load the data, split into what is learnt from and what is only tested with."""
    data = load_digits()
    parts = train_test_split(data.images, data.target, test_size=0.2, random_state=0, stratify=data.target)
    seen, held_out, seen_labels, held_out_labels = (torch.from_numpy(part) for part in parts)
    return Digits(seen.float() / INK, seen_labels), Digits(held_out.float() / INK, held_out_labels)


def train(seen: Digits) -> DigitsNet:
    """Train a network."""
    torch.manual_seed(0)
    network = DigitsNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    network.train()
    for _epoch in range(EPOCHS):
        for chosen in torch.randperm(len(seen.labels)).split(BATCH):
            optimizer.zero_grad()
            logits = network(seen.images[chosen].unsqueeze(1))
            torch.nn.functional.cross_entropy(logits, seen.labels[chosen]).backward()
            optimizer.step()
    return network.eval()


def accuracy(network: DigitsNet, held_out: Digits) -> float:
    """Compute the part of the images that the network reads right."""
    with torch.inference_mode():
        read = network(held_out.images.unsqueeze(1)).argmax(dim=1)
    return (read == held_out.labels).float().mean().item()


def png(image: torch.Tensor, scale: int = 8) -> bytes:
    """Draw one image of the data set as a PNG, white on black, each pixel ``scale`` wide."""
    pixels = (image * 255).round().to(torch.uint8)
    picture = Image.frombytes("L", (8, 8), bytes(pixels.flatten().tolist()))
    file = io.BytesIO()
    picture.resize((8 * scale, 8 * scale), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def main(target: Path) -> float:
    """Train, write the state dict to ``target``, and return the accuracy on the images held out."""
    seen, held_out = digits()
    network = train(seen)
    torch.save(network.state_dict(), target)
    return accuracy(network, held_out)


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "digits.pt")
    print(f"{path}: {main(path):.1%} of the test images are read right")
