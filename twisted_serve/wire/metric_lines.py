# SPDX-License-Identifier: Apache-2.0
"""
Format a metric as a line of a worker's stdout (``docs/torchserve/config_cli.md`` §10.5).

Metrics that are emitted while a batch is processed may instead be sent with its response, as `Reading` values.
"""

from __future__ import annotations

#: Prefix of a line that is a metric and not for the model log.
METRIC_MARK = "[METRICS]"


def metric_line(
    name: str, unit: str, value: object, labels: str, kind: str, host: str, time: int, request_ids: str | None
) -> str:
    """Format a value without the mark; the arguments are the fields of a `Reading`, but the value may be any number."""
    line = f"{name}.{unit}:{value}|#{labels}|#type:{kind}|#hostname:{host},{time}"
    if request_ids:
        line += f",{request_ids}"
    # A line break in a label must not start another line.
    return " ".join(line.splitlines())
