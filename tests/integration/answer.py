# SPDX-License-Identifier: Apache-2.0
"""
An answer of a server, as ``curl`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen


@frozen
class Answer:
    """An answer to a request; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def read_answer(head: bytes, body: bytes) -> Answer:
    """Read the two files that ``curl`` writes: the heads, and the body."""
    # The last head counts: "100 Continue" may come before it.
    *_, last = head.decode("latin-1").rstrip().split("\r\n\r\n")
    status, *lines = last.split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, body)
