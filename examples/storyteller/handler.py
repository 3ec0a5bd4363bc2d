# SPDX-License-Identifier: Apache-2.0
"""
Continue a story: stream the text that follows its beginning, word by word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from model import ALPHABET, encode
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler

# Characters; it does not know when its story ends.
LONGEST = 600


class StorytellerHandler(BaseHandler):
    """Sends each word as soon as it is there; one request at a time."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Tell the story on; the last line comes as the answer itself."""
        body = data[0].get("data", data[0].get("body"))
        beginning = body.decode("utf-8", "replace") if isinstance(body, (bytes, bytearray)) else str(body)
        context.set_response_content_type(0, "text/plain; charset=utf-8")
        word = ""
        for character in self._characters(beginning or "o"):
            word += character
            if character == "\n":
                return [word]
            if character == " ":
                # Whoever has left need not be told the rest.
                if context.is_cancelled():
                    break
                send_intermediate_predict_response([word], context.request_ids, "Intermediate", 200, context)
                word = ""
        return [word]

    def _characters(self, beginning: str) -> Iterator[str]:
        with torch.inference_mode():
            logits, state = self.model(encode(beginning[-LONGEST:]))
            for _ in range(LONGEST):
                index = logits[:, -1].argmax(dim=-1, keepdim=True)
                yield ALPHABET[int(index)]
                logits, state = self.model(index, state)
