# SPDX-License-Identifier: Apache-2.0
"""
The same handlers under LitServe, which reads JSON (and forms) itself and takes nothing else.

It is run as a script by the interpreter of LitServe's own environment: ``python litserve_app.py CASE PORT``.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import litserve

sys.path.insert(0, str(Path(__file__).resolve().parent / "handlers"))

# As benchmarks.cases has it, which this environment cannot import.
BATCHES = {"mlp32": 32}
HANDLERS = {
    "noop": "noop.NoOp",
    "mlp1": "mlp.Perceptron",
    "mlp32": "mlp.Perceptron",
    "encoder": "encoder.Encoder",
}


class Api(litserve.LitAPI):
    """One of the handlers."""

    def __init__(self, case, **settings):
        super().__init__(**settings)
        self.case = case

    def setup(self, device):
        module, _, name = HANDLERS[self.case].partition(".")
        self.handler = getattr(__import__(module), name)()
        self.handler.initialize(SimpleNamespace())

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
