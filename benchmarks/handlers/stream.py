# SPDX-License-Identifier: Apache-2.0
"""A handler that sends ten messages: what is measured is the server."""

from ts.handler_utils.utils import send_intermediate_predict_response


class Stream:
    """Sends ``ok`` nine times, and answers it."""

    def initialize(self, context):
        """Load nothing."""

    def handle(self, data, context):
        """Answer each request."""
        answers = ["ok"] * len(data)
        for _ in range(9):
            send_intermediate_predict_response(answers, context.request_ids, "", 200, context)
        return answers
