# SPDX-License-Identifier: Apache-2.0
"""
Train the network on one small story until it reproduces the story, which takes some seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
if __package__ in (None, ""):
    sys.path.insert(0, str(HERE.parents[1]))

from examples.storyteller.model import Storyteller, encode  # noqa: E402

STEPS = 150

STORY = (HERE / "story.txt").read_text(encoding="utf-8")


def train() -> Storyteller:
    """Train the network until it can tell each line of the story from its beginning."""
    torch.manual_seed(0)
    # Steps this small are not worth sharing: threads would spend their time waiting for each other.
    torch.set_num_threads(1)
    network = Storyteller()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    # Each line is begun without knowing what came before it, as a prompt is.
    lines = [encode(line) for line in STORY.splitlines(keepends=True)]
    length = max(line.shape[1] for line in lines)
    padded = torch.cat([torch.nn.functional.pad(line, (0, length - line.shape[1]), value=-1) for line in lines])
    seen, wanted = padded[:, :-1].clamp(min=0), padded[:, 1:]
    for _step in range(STEPS):
        optimizer.zero_grad()
        logits, _state = network(seen)
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=-1).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.eval()
