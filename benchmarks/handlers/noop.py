# SPDX-License-Identifier: Apache-2.0
"""A handler that does nothing: what is measured is the server."""


class NoOp:
    """Answers ``ok``."""

    def initialize(self, context):
        """Load nothing."""

    def handle(self, data, context):
        """Answer each request."""
        return ["ok"] * len(data)
