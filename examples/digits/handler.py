# SPDX-License-Identifier: Apache-2.0
"""
Classify the picture of a digit: return the digit and its probability.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from PIL import Image
from ts.torch_handler.base_handler import BaseHandler

# A picture of one digit needs no more; a PNG of some kilobytes can unpack to gigabytes.
MAX_PIXELS = 4096 * 4096


class DigitsHandler(BaseHandler):
    """Reads PNG and JPEG pictures of single digits, dark on light or light on dark."""

    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        """Make ``[N, 1, 8, 8]`` of the pictures; what is no picture is blank here and an error later."""
        self.refused: dict[int, str] = {}
        bodies = [row.get("data", row.get("body")) for row in data]
        return torch.stack([self._image_or_blank(index, body) for index, body in enumerate(bodies)]).unsqueeze(1)

    def _image_or_blank(self, index: int, body: Any) -> torch.Tensor:
        try:
            return _image(body)
        # What broken pictures raise in Pillow.
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            self.refused[index] = f"The body is not a PNG or JPEG picture: {e}"
            return torch.zeros(8, 8)

    def postprocess(self, data: torch.Tensor) -> list[dict[str, Any]]:
        """Name the most probable digit of each."""
        return [self._answer(index, row) for index, row in enumerate(data.softmax(dim=1).tolist())]

    def _answer(self, index: int, probabilities: list[float]) -> dict[str, Any]:
        self.context.set_response_content_type(index, "application/json")
        if index in self.refused:
            self.context.set_response_status(400, "Bad Request", index)
            return {"code": 400, "type": "BadRequestException", "message": self.refused[index]}
        digit = max(range(10), key=probabilities.__getitem__)
        return {"digit": digit, "probabilities": {str(i): round(each, 4) for i, each in enumerate(probabilities)}}


def _image(body: Any) -> torch.Tensor:
    if not isinstance(body, (bytes, bytearray)):
        raise ValueError("it was sent as JSON or text")
    with Image.open(io.BytesIO(body), formats=("PNG", "JPEG")) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} by {picture.height} pixels are too many")
        paper = Image.new("RGBA", picture.size, "white")
        grey = Image.alpha_composite(paper, picture.convert("RGBA")).convert("L")
    small = grey.resize((8, 8), Image.Resampling.BOX)
    image = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).reshape(8, 8).float() / 255
    # The network has seen light on dark only; at the left and right edge there is rarely ink.
    return 1 - image if image[:, [0, -1]].mean() > 0.5 else image
