# SPDX-License-Identifier: Apache-2.0
"""
Stream the texts of a batch while Hugging Face transformers generates them: ``TextIteratorStreamerBatch``.

Importing this module requires transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any

from transformers.generation.streamers import BaseStreamer

__all__ = ["TextIteratorStreamerBatch"]


class TextIteratorStreamerBatch(BaseStreamer):  # type: ignore[misc, unused-ignore]
    """
    Pass it as ``streamer`` to ``model.generate`` in a thread, and iterate: each step is a list of ``{"text": piece}``.

    :param tokenizer: The tokenizer that decodes the tokens.
    :param batch_size: The number of texts.
    :param skip_prompt: If true, leave out the prompts, which ``generate`` passes first.
    :param timeout: Seconds to wait for a step; ``None`` to wait indefinitely.
    :param decode_kwargs: Arguments of the tokenizer's ``decode``.
    """

    def __init__(
        self,
        tokenizer: Any,
        batch_size: int,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.skip_prompt = skip_prompt
        self.timeout = timeout
        self.decode_kwargs = decode_kwargs
        self._prompts_next = True
        self._tokens: list[list[int]] = [[] for _ in range(batch_size)]
        self._shown = [0] * batch_size
        self._steps: Queue[list[dict[str, str]] | None] = Queue()

    def put(self, value: Any) -> None:
        """
        Append tokens: first the prompts, then one token of each text per call.

        :param value: An integer tensor of shape (``batch_size``, prompt length), then of shape (``batch_size``,).
        :raise ValueError: if the first dimension is not ``batch_size``.
        """
        rows = value.tolist()
        if len(rows) != self.batch_size:
            raise ValueError(f"the streamer is for {self.batch_size} texts, and was given {len(rows)}")
        prompts, self._prompts_next = self._prompts_next, False
        if prompts and self.skip_prompt:
            return
        for tokens, row in zip(self._tokens, rows, strict=True):
            tokens.extend(row if isinstance(row, list) else [row])
        self._emit(ended=False)

    def end(self) -> None:
        """Emit the remaining text and end the iteration."""
        self._emit(ended=True)
        self._steps.put(None)
        self._prompts_next = True

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        return self

    def __next__(self) -> list[dict[str, str]]:
        try:
            step = self._steps.get(timeout=self.timeout)
        except Empty:
            raise TimeoutError(f"no token within {self.timeout} seconds") from None
        if step is None:
            raise StopIteration
        return step

    def _emit(self, ended: bool) -> None:
        pieces = []
        for index, tokens in enumerate(self._tokens):
            text = self.tokenizer.decode(tokens, **self.decode_kwargs) if tokens else ""
            # A character encoded in several tokens decodes to U+FFFD until its last token has come.
            complete = text if ended else text.removesuffix("\ufffd")
            pieces.append({"text": complete[self._shown[index] :]})
            self._shown[index] = max(self._shown[index], len(complete))
        if any(each["text"] for each in pieces) or not ended:
            self._steps.put(pieces)
        if ended:
            self._tokens = [[] for _ in range(self.batch_size)]
            self._shown = [0] * self.batch_size
