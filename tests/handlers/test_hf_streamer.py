# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.hf_streamer`, with a tokenizer whose tokens are bytes."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from twisted_serve.handlers.hf_streamer import TextIteratorStreamerBatch  # noqa: E402


class Tokenizer:
    """Tokens are bytes."""

    def decode(self, tokens: list[int], **options: Any) -> str:
        return bytes(tokens).decode("utf-8", "replace")


class StreamerTests(SynchronousTestCase):
    """The texts of a batch, step by step."""

    def _stream(self, *texts: str, prompt: str = "> ", **options: Any) -> list[list[str]]:
        streamer = TextIteratorStreamerBatch(Tokenizer(), len(texts), **options)
        encoded = [each.encode() for each in texts]
        streamer.put(torch.tensor([list(prompt.encode())] * len(texts)))
        for step in zip(*encoded, strict=True):
            streamer.put(torch.tensor(step))
        streamer.end()
        return [[each["text"] for each in step] for step in streamer]

    def test_steps(self) -> None:
        """Each step has a piece of each text; the prompts come first, or not at all."""
        self.assertEqual(self._stream("ab", "cd"), [["> ", "> "], ["a", "c"], ["b", "d"]])
        self.assertEqual(self._stream("ab", "cd", skip_prompt=True), [["a", "c"], ["b", "d"]])

    def test_characters(self) -> None:
        """A character of several tokens comes whole."""
        steps = self._stream("aé", "xyz", skip_prompt=True)
        self.assertEqual(steps, [["a", "x"], ["", "y"], ["é", "z"]])

    def test_again(self) -> None:
        """The next generation begins with prompts again."""
        streamer = TextIteratorStreamerBatch(Tokenizer(), 1, skip_prompt=True)
        for _ in range(2):
            streamer.put(torch.tensor([[62]]))
            streamer.put(torch.tensor([97]))
            streamer.end()
            self.assertEqual(list(streamer), [[{"text": "a"}]])

    def test_limits(self) -> None:
        """Another number of texts is refused; a step that does not come is waited for no longer than asked."""
        streamer = TextIteratorStreamerBatch(Tokenizer(), 2, timeout=0.001)
        self.assertRaises(ValueError, streamer.put, torch.tensor([[1]]))
        self.assertRaises(TimeoutError, next, streamer)
