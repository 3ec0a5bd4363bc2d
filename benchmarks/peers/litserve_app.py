# SPDX-License-Identifier: Apache-2.0
"""The handlers under LitServe, which reads JSON (and forms) itself and takes nothing else."""

import sys

import litserve
from served import BATCHES, handler_of


class Api(litserve.LitAPI):
    """One of the handlers."""

    def __init__(self, case, **settings):
        super().__init__(**settings)
        self.case = case

    def setup(self, device):
        self.handler = handler_of(self.case)

    def decode_request(self, request):
        return request

    def predict(self, x):
        bodies = x if self.case in BATCHES else [x]
        answers = self.handler.handle([{"body": body} for body in bodies], None)
        return answers if self.case in BATCHES else answers[0]

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    case, port = sys.argv[1], int(sys.argv[2])
    batching = {"max_batch_size": BATCHES[case], "batch_timeout": 0.005} if case in BATCHES else {}
    server = litserve.LitServer(Api(case, **batching), accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
