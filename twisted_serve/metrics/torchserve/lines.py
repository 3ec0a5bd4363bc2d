# SPDX-License-Identifier: Apache-2.0
"""
Parse the metric lines of workers, and render those of the log.

Both formats are TorchServe's (``docs/torchserve/config_cli.md`` §10.5 and §10.6).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from decimal import Decimal

from twisted_serve.logs import RenderedLines, printable
from twisted_serve.wire.messages import Reading

_LINE = re.compile(
    r"(?:INFO > )?\[METRICS\](?P<name>[\w ]+)\.(?P<unit>[\w ]+):(?P<value>[^|]{1,64})"
    r"\|#(?P<dimensions>.*)\|#type:(?P<kind>COUNTER|GAUGE|HISTOGRAM)"
    r"\|#hostname:(?P<host>[^,]*),(?P<time>[0-9]{1,18})(?:,(?P<ids>.*))?"
)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?|[-+]?inf|nan")


def parse_line(line: str) -> Reading:
    """
    Parse a metric line of a worker.

    :raise ValueError: for a line that is not a metric.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("it is not of the form [METRICS]Name.Unit:value|#labels|#type:TYPE|#hostname:host,time")
    name, unit, value, labels, kind, host, time, ids = match.groups()
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{value!r} is not a number")
    return Reading(name, unit, float(value), labels, kind, host, int(time), ids or "")


def split_labels(text: str) -> tuple[tuple[str, str], ...]:
    """
    Split labels into names and values.

    A value may contain colons; it may contain a comma if the text after the comma does not look like a label.
    """
    pairs: list[tuple[str, str]] = []
    for piece in text.split(","):
        name, colon, value = piece.partition(":")
        if colon:
            pairs.append((name, value))
        elif pairs:
            last, before = pairs[-1]
            pairs[-1] = last, f"{before},{piece}"
    return tuple(pairs)


def decimal(value: float) -> str:
    """Format a number as Java does: always with a decimal part, in exponent notation from ``1.0E7`` on."""
    value = float(value)
    if 1e-3 <= value < 1e7 or 1e-3 <= -value < 1e7 or value == 0:
        return repr(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    first, *more = map(str, digits)
    return f"{'-' * sign}{first}.{''.join(more) or '0'}E{len(more) + int(exponent)}"


class Series:
    """
    The values of one metric with the same labels, in the log.

    :ivar before: The part of its lines before the value.
    :ivar after: The part after the value; ids and time follow it.
    """

    __slots__ = ("after", "before")

    def __init__(self, name: str, unit: str, labels: Sequence[tuple[str, str]], host: str) -> None:
        shown = ",".join(f"{label}:{value}" for label, value in labels)
        self.before = printable(f"{name}.{unit}:")
        self.after = printable(f"|#{shown}|#hostname:{host},")


def lines_of_values(values: Sequence[tuple[Series, float]], second: int) -> RenderedLines:
    """Return the lines of server metrics that were recorded in this second since the epoch."""
    end = f"timestamp:{second}"
    lines = []
    # Counts and whole milliseconds, of which many are equal.
    whole: dict[tuple[Series, float], str] = {}
    for one in values:
        series, value = one
        if type(value) is int:
            line = whole.get(one)
            if line is None:
                line = whole[one] = f"{series.before}{decimal(value)}{series.after}{end}"
        else:
            line = f"{series.before}{decimal(value)}{series.after}{end}"
        lines.append(line)
    return RenderedLines(lines, _texts_of({series for series, _value in values}))


def lines_of_readings(values: Sequence[tuple[Series, Reading]], _second: int) -> RenderedLines:
    """Return the lines of handlers' metrics, which have the time of the worker and the ids of requests."""
    lines = []
    ids, shown = "", ""
    texts = set()
    for series, each in values:
        # Several values belong to the same request.
        if each.request_ids != ids:
            ids = each.request_ids
            shown = printable(ids)
            texts.add(ids)
        lines.append(f"{series.before}{decimal(each.value)}{series.after}requestID:{shown},timestamp:{each.time}")
    return RenderedLines(lines, [*_texts_of({series for series, _each in values}), *texts])


def _texts_of(series: Collection[Series]) -> list[str]:
    return [part for each in series for part in (each.before, each.after)]
