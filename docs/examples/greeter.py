# SPDX-License-Identifier: Apache-2.0
"""
The handler of ``mounted.py``, which workers import from here.
"""

from __future__ import annotations

from typing import Any


class Greeter:
    """Greets each client."""

    def initialize(self, context: Any) -> None:
        """Load the model: a text."""
        self._text = "Hello, {}!"

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        """Return a greeting for each request; ``body`` is text if its content type says so, else bytes."""
        bodies = [row["body"] for row in data]
        return [self._text.format(body if isinstance(body, str) else bytes(body).decode()) for body in bodies]
