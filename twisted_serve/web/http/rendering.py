# SPDX-License-Identifier: Apache-2.0
"""
Render JSON, error objects and header lines.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.web.http_headers import Headers

from twisted_serve.errors import ServeError


def lines_of(headers: Headers) -> bytes:
    """Return headers as the lines of a message, each with its line end."""
    return b"".join([b"%s: %s\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values])


def json_text(value: Any) -> bytes:
    """
    Render JSON in TorchServe's layout (``docs/torchserve/rest_api.md`` §2.5).

    The layout indents by two blanks, keeps non-ASCII characters, and ends with one newline.
    """
    # A lone surrogate, which JSON input can contain, is written as a JSON escape again.
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def members_of(error: ServeError) -> dict[str, Any]:
    """Return the members of the error object."""
    members: dict[str, Any] = {"code": error.status, "type": error.kind, "message": error.message}
    if error.reason is not None:
        members["reason"] = error.reason
    return members
