# SPDX-License-Identifier: Apache-2.0
"""
This module implements a metric as a line of a worker's stdout (``docs/torchserve/config_cli.md`` §10.5).

What is emitted while a batch is being answered need not become one: it may travel with the
answer, as a `Reading`.
"""

from __future__ import annotations

#: How a line begins that is a metric and not for the model log.
METRIC_MARK = "[METRICS]"


def metric_line(
    name: str, unit: str, value: object, labels: str, kind: str, host: str, time: int, request_ids: str | None
) -> str:
    """Write a value, without the mark; the arguments are the fields of a `Reading`, but the value may be any number."""
    line = f"{name}.{unit}:{value}|#{labels}|#type:{kind}|#hostname:{host},{time}"
    if request_ids:
        line += f",{request_ids}"
    # One value, one line: a label with a line break must not begin another.
    return " ".join(line.splitlines())
