# SPDX-License-Identifier: Apache-2.0
"""
Read and write dates and durations as people do: ``30d``, ``12h``, ``2027-01-31``, ``never``.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from math import ceil

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")

NEVER = "never"


def parse_expiry(text: str) -> dict[str, object]:
    """
    Return the member of a request that says when a key expires.

    :param text: A number with a unit (``s``, ``m``, ``h``, ``d``, ``w``), an ISO date or time, or ``never``; local time
        if there is no zone.
    :raise ValueError: for anything else.
    """
    if text == NEVER:
        return {"expires": None}
    duration = _DURATION.fullmatch(text)
    if duration is not None:
        return {"expires_in_sec": int(duration[1]) * _SECONDS[duration[2]]}
    try:
        moment = parse_moment(text)
    except ValueError:
        raise ValueError(f"{text!r} is no expiry: give 30d, 12h, 2027-01-31, an ISO time or never") from None
    return {"expires": moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")}


def parse_moment(text: str) -> datetime:
    """
    Parse an ISO date or time; local time if there is no zone.

    :raise ValueError: for anything else.
    """
    # Python 3.10 does not know the Z.
    moment = datetime.fromisoformat(text.replace("Z", "+00:00") if text.endswith("Z") else text)
    return moment.astimezone() if moment.tzinfo is None else moment


def time_left(expires: object, now: datetime) -> str:
    """Return the time until a date in words; ``None`` is never."""
    if expires is None:
        return NEVER
    try:
        seconds = (parse_moment(str(expires)) - now).total_seconds()
    except ValueError:
        return str(expires)
    return "expired" if seconds <= 0 else f"in {in_words(ceil(seconds))}"


def time_since(moment: object, now: datetime) -> str | None:
    """Return the time since a date in words; ``None`` for no date."""
    if moment is None:
        return None
    try:
        return f"{in_words(max(0, (now - parse_moment(str(moment))).total_seconds()))} ago"
    except ValueError:
        return str(moment)


def in_words(seconds: float) -> str:
    """Return a duration in its two largest units."""
    left = int(seconds)
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _SECONDS[unit])
        parts.append((count, unit))
    first = next((place for place, (count, _unit) in enumerate(parts) if count), len(parts) - 1)
    shown = [f"{count} {unit}" for count, unit in parts[first : first + 2] if count]
    return " ".join(shown) or "0 s"
