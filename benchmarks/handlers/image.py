# SPDX-License-Identifier: Apache-2.0
"""A handler that only looks at how large its input is: what is measured is the way of a large body."""


class Size:
    """Answers with the number of bytes."""

    def initialize(self, context):
        """Load nothing."""

    def handle(self, data, context):
        """Answer each request."""
        return [str(len(row.get("body") or row.get("data"))) for row in data]
