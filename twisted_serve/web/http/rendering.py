# SPDX-License-Identifier: Apache-2.0
"""
Render JSON, error objects and header lines.
"""

from __future__ import annotations

from typing import Any

from twisted.web.http_headers import Headers

from twisted_serve.errors import ServeError
from twisted_serve.planes.json_layout import pretty


def lines_of(headers: Headers) -> bytes:
    """Return headers as the lines of a message, each with its line end."""
    return b"".join([b"%s: %s\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values])


def json_text(value: Any) -> bytes:
    """Render JSON in TorchServe's layout, with one newline at the end (``docs/torchserve/rest_api.md`` §2.5)."""
    return (pretty(value) + "\n").encode("utf-8")


def members_of(error: ServeError) -> dict[str, Any]:
    """Return the members of the error object."""
    members: dict[str, Any] = {"code": error.status, "type": error.kind, "message": error.message}
    if error.reason is not None:
        members["reason"] = error.reason
    return members
