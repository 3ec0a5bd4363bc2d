# SPDX-License-Identifier: Apache-2.0
"""
Find speech in a WAV file: return its segments in seconds.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from segments import segments
from wave_audio import RATE, Audio, NotAudioError, read_wave

# The model wants frames of this many samples.
FRAME = 512


class VoiceActivityHandler:
    """Finds speech with the TorchScript model of Silero VAD."""

    def initialize(self, context: Any) -> None:
        """Load the model that the manifest names."""
        # A frame is too little work to share, and the server runs one worker for each core.
        torch.set_num_threads(1)
        path = os.path.join(context.system_properties["model_dir"], context.manifest["model"]["serializedFile"])
        self.model = torch.jit.load(path, map_location="cpu")
        self.model.eval()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """Answer each request for itself: what is wrong with one file is no other client's concern."""
        return [self._answer(row, index, context) for index, row in enumerate(data)]

    def _answer(self, row: dict[str, Any], index: int, context: Any) -> dict[str, Any]:
        context.set_response_content_type(index, "application/json")
        body = row.get("data", row.get("body"))
        try:
            if not isinstance(body, (bytes, bytearray)):
                raise NotAudioError("The body is not a PCM WAV file: it was sent as JSON or text")
            audio = read_wave(body)
        except NotAudioError as e:
            context.set_response_status(400, "Bad Request", index)
            return {"code": 400, "type": "BadRequestException", "message": str(e)}
        found = segments(self._probabilities(audio), FRAME / RATE, audio.duration)
        return {
            "segments": [{"start": round(each.start, 3), "end": round(each.end, 3)} for each in found],
            "duration": round(audio.duration, 3),
        }

    def _probabilities(self, audio: Audio) -> list[float]:
        missing = -len(audio.samples) % FRAME
        frames = torch.nn.functional.pad(audio.samples, (0, missing)).reshape(-1, 1, FRAME)
        # It remembers what it heard before, from one frame to the next.
        self.model.reset_states()
        with torch.inference_mode():
            return [self.model(frame, RATE).item() for frame in frames]
