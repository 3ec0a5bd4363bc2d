# SPDX-License-Identifier: Apache-2.0
"""
Define the network: characters in, the next character out, one at a time.
"""

from __future__ import annotations

import torch

WIDTH = 64

# What it can read and write; anything else it reads as a blank.
ALPHABET = " abcdefghijklmnopqrstuvwxyz.,'\n"


class Storyteller(torch.nn.Module):
    """A recurrent network over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(len(ALPHABET), WIDTH)
        self.memory = torch.nn.GRU(WIDTH, WIDTH * 2, batch_first=True)
        self.output = torch.nn.Linear(WIDTH * 2, len(ALPHABET))

    def forward(self, characters: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """From ``[N, T]`` indices into the alphabet to ``[N, T, alphabet]`` logits, and what to remember."""
        hidden, state = self.memory(self.embedding(characters), state)
        logits: torch.Tensor = self.output(hidden)
        return logits, state


def encode(text: str) -> torch.Tensor:
    """Make ``[1, T]`` indices of a text."""
    return torch.tensor([[max(ALPHABET.find(character), 0) for character in text.lower()]])
