# SPDX-License-Identifier: Apache-2.0
"""
Decode a WAV file into samples at 16 kHz.
"""

from __future__ import annotations

import array
import io
import sys
import wave
from typing import NamedTuple

import torch

#: What the model listens at.
RATE = 16000

# From telephones to studios.  The format allows 1 Hz to 4 GHz, and every sample at 1 Hz would become 16000.
MIN_RATE, MAX_RATE = 8_000, 384_000


class Audio(NamedTuple):
    """Mono samples from -1 to 1 at :data:`RATE`, and how long the recording is, in seconds."""

    samples: torch.Tensor
    duration: float


class NotAudioError(ValueError):
    """The bytes are not a WAV file that can be read; the text says why."""


def read_wave(data: bytes | bytearray) -> Audio:
    """
    Read PCM with 8, 16 or 32 bits, one or two channels, at any usual rate.

    :raise NotAudioError: if that is not what ``data`` is.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames = file.readframes(file.getnframes())
    # The module lets several of its parsing accidents out as they are.
    except (wave.Error, EOFError, ValueError, RuntimeError, ZeroDivisionError) as e:
        raise NotAudioError(f"The body is not a PCM WAV file: {str(e) or 'it ends too early'}") from e
    if width not in _READERS:
        raise NotAudioError(f"The WAV file has {8 * width} bits per sample; 8, 16 and 32 can be read")
    if channels not in (1, 2):
        raise NotAudioError(f"The WAV file has {channels} channels; 1 and 2 can be read")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise NotAudioError(f"The WAV file has a rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} can be read")
    # A file that was cut off may end inside a frame.
    whole = len(frames) // (width * channels) * (width * channels)
    samples = _READERS[width](frames[:whole])
    mono = samples.reshape(-1, channels).mean(dim=1)
    return Audio(_at_rate(mono, rate), len(mono) / rate)


def _eight_bits(frames: bytes) -> torch.Tensor:
    return (_tensor(frames, torch.uint8).float() - 128) / 128


def _sixteen_bits(frames: bytes) -> torch.Tensor:
    return _tensor(_native(frames, "h"), torch.int16).float() / 2**15


def _thirty_two_bits(frames: bytes) -> torch.Tensor:
    return (_tensor(_native(frames, "i"), torch.int32).double() / 2**31).float()


_READERS = {1: _eight_bits, 2: _sixteen_bits, 4: _thirty_two_bits}


def _tensor(frames: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(frames), dtype=dtype) if frames else torch.empty(0, dtype=dtype)


def _native(frames: bytes, code: str) -> bytes:
    if sys.byteorder == "little":
        return frames
    samples = array.array(code, frames)
    samples.byteswap()
    return samples.tobytes()


def _at_rate(samples: torch.Tensor, rate: int) -> torch.Tensor:
    length = round(len(samples) * RATE / rate)
    if rate == RATE or length == 0:
        return samples[:length]
    if rate % RATE == 0:
        return samples[:: rate // RATE]
    return torch.nn.functional.interpolate(samples[None, None], size=length, mode="linear")[0, 0]
