# SPDX-License-Identifier: Apache-2.0
"""
Represent what a client of a server in tests sends and gets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from twisted_serve.listening.roles import Role


class NoAnswerYet(AssertionError):
    """The request is still in progress: advance the time, or let a held worker answer."""


@frozen
class Answer:
    """
    A response of the server.

    :ivar headers: By lower-case name; the last value of a repeated header.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed as JSON."""
        return json.loads(self.body)


def headers_with(key: str | None, headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return headers with the one that presents a bearer token, if there is a token."""
    presented = {} if key is None else {"Authorization": f"Bearer {key}"}
    return {**(headers or {}), **presented}


def role_of(path: str) -> Role:
    """Return the role of the listener to which a path appears to belong."""
    first, _, rest = path.partition("?")[0].lstrip("/").partition("/")
    if (first in ("keys", "models", "token", "workflows") and not rest.endswith("/invoke")) or (
        first == "v1" and ":" not in rest
    ):
        return Role.MANAGEMENT
    return Role.METRICS if first == "metrics" else Role.INFERENCE
