# SPDX-License-Identifier: Apache-2.0
"""
Turn probabilities of speech, frame by frame, into segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# Speech begins above the first and goes on down to the second: a voice that trembles
# around one line must not be cut to pieces.
BEGIN = 0.5
GO_ON = 0.35

# Seconds.  Shorter pauses belong to the speech; shorter speech is a cough.
SHORTEST_PAUSE = 0.3
SHORTEST_SPEECH = 0.25

# Seconds.  The first and last sounds of a word are faint.
MARGIN = 0.03


class Segment(NamedTuple):
    """A stretch of speech, in seconds."""

    start: float
    end: float


def segments(probabilities: Iterable[float], frame: float, duration: float) -> list[Segment]:
    """
    Find the speech.

    :param frame: The seconds that each probability is about.
    :param duration: The whole recording's length in seconds; no segment ends later.
    """
    found: list[Segment] = []
    start = last = None
    for index, probability in enumerate(probabilities):
        if probability >= (BEGIN if start is None else GO_ON):
            start = index if start is None else start
            last = index + 1
        elif start is not None and last is not None and (index + 1 - last) * frame >= SHORTEST_PAUSE:
            found.append(Segment(start * frame, last * frame))
            start = last = None
    if start is not None and last is not None:
        found.append(Segment(start * frame, last * frame))
    return [
        Segment(max(0.0, each.start - MARGIN), min(duration, each.end + MARGIN))
        for each in found
        if each.end - each.start >= SHORTEST_SPEECH
    ]
