# SPDX-License-Identifier: Apache-2.0
"""
Ask a server in tests byte by byte, and keep requests open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted_serve.testing.answers import Answer, role_of
from twisted_serve.testing.server import MemoryServer

__all__ = ["OpenRequest", "ask"]


class OpenRequest:
    """
    A request on a connection of its own.

    :param body: Sent as JSON, if given.
    """

    def __init__(
        self, server: MemoryServer, method: str, path: str, authorization: list[str], body: Mapping[str, Any] | None
    ) -> None:
        role = role_of(path)
        self._connection = server.connect(role)
        content = b"" if body is None else json.dumps(body).encode("ascii")
        lines = [
            f"{method} {server.path_of(path, role)} HTTP/1.1",
            "Host: h",
            f"Content-Length: {len(content)}",
            *(f"Authorization: {value}" for value in authorization),
            "",
            "",
        ]
        self._connection.send("\r\n".join(lines).encode("latin-1") + content)

    @property
    def answer(self) -> Answer | None:
        """The response, if it has arrived."""
        head, blank, body = self._connection.received.partition(b"\r\n\r\n")
        if not blank:
            return None
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Answer(int(status.split(" ")[1]), {name.lower(): value for name, value in headers.items()}, body)

    def leave(self) -> None:
        """Close the connection from the client's side."""
        self._connection.leave()


def ask(
    server: MemoryServer,
    method: str,
    path: str,
    authorization: list[str],
    body: Mapping[str, Any] | None = None,
) -> Answer:
    """
    Send a request and return its response.

    :raise AssertionError: if there is none without time passing.
    """
    request = OpenRequest(server, method, path, authorization, body)
    answer = request.answer
    request.leave()
    assert answer is not None, f"{method} {path} is not answered at once"
    return answer
