# SPDX-License-Identifier: Apache-2.0
"""
Spell moments and durations in the messages of failed tests.
"""

from __future__ import annotations

from datetime import datetime, timedelta

_MICROSECOND = timedelta(microseconds=1)

# In microseconds, the longest first.
_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("µs", 1))


def spell_duration(duration: timedelta) -> str:
    """Return a duration in units down to the microsecond, without its sign, e.g. ``59 min 59 s``."""
    rest = abs(duration) // _MICROSECOND
    parts = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


def spell_moment(moment: datetime, start: datetime) -> str:
    """Return the time of a moment, e.g. ``12:05:00.000001``; with the date if it is not that of ``start``."""
    text = f"{moment:%H:%M:%S}" if moment.date() == start.date() else f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{text}.{moment.microsecond:06}" if moment.microsecond else text
