# SPDX-License-Identifier: Apache-2.0
"""A transformer encoder of six layers: about 10 ms of one processor for a sequence of 64 tokens."""

import json

import torch


class Encoder:
    """Encodes lists of token numbers."""

    def initialize(self, context):
        """Make the weights; which ones does not matter here."""
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
        self.model = torch.nn.TransformerEncoder(layer, 6).eval()
        self.embedding = torch.nn.Embedding(1000, 256).eval()

    def handle(self, data, context):
        """Answer a batch with one forward."""
        rows = [row.get("body") or row.get("data") for row in data]
        rows = [json.loads(row) if isinstance(row, (bytes, bytearray, str)) else row for row in rows]
        with torch.inference_mode():
            encoded = self.model(self.embedding(torch.tensor(rows))).mean(dim=(1, 2))
        return [{"mean": each} for each in encoded.tolist()]
