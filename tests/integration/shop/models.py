# SPDX-License-Identifier: Apache-2.0
"""The application's handler."""

from __future__ import annotations

from typing import Any


class Shout:
    """Answers in upper case, with the name of the sender."""

    def initialize(self, context: Any) -> None:
        pass

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        names = [context.get_request_header(index, "principal") for index in range(len(data))]
        return [f"{bytes(row['body']).decode().upper()} {name}" for row, name in zip(data, names, strict=True)]
