# SPDX-License-Identifier: Apache-2.0
"""
Embed sentences: one vector for each, in one forward pass for a whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

# The model has positions for more, but was trained with sentences up to this many tokens.
LONGEST = 256


class EmbeddingHandler:
    """Serves a BERT from safetensors: mean over the tokens, length 1, as sentence-transformers does."""

    def initialize(self, context: Any) -> None:
        """Load the model and its tokenizer from the archive, from nowhere else."""
        directory = context.system_properties["model_dir"]
        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self.model = AutoModel.from_pretrained(directory, local_files_only=True, use_safetensors=True).eval()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Embed the sentences of all requests; what is no sentence is that client's error alone."""
        texts = [_text(row.get("data", row.get("body"))) for row in data]
        vectors = self._embed([text or "" for text in texts])
        answers: list[Any] = []
        for index, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
            context.set_response_content_type(index, "application/json")
            if text is None:
                context.set_response_status(400, "Bad Request", index)
                message = 'The body must be text, or JSON of the form {"text": "..."}.'
                answers.append({"code": 400, "type": "BadRequestException", "message": message})
            else:
                answers.append({"embedding": [round(value, 6) for value in vector]})
        return answers

    def _embed(self, texts: list[str]) -> list[list[float]]:
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        means = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        vectors: list[list[float]] = torch.nn.functional.normalize(means, dim=1).tolist()
        return vectors


def _text(body: Any) -> str | None:
    if isinstance(body, dict):
        body = body.get("text")
    if isinstance(body, (bytes, bytearray)):
        try:
            body = body.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return body if isinstance(body, str) and body.strip() else None
