# SPDX-License-Identifier: Apache-2.0
"""The handlers under Mosec: its front is written in Rust, its worker is a process of Python."""

import os
import sys

from mosec import Server, Worker
from served import BATCHES, JSON, handler_of


class Raw(Worker):
    """A handler that gets bytes and returns text."""

    def __init__(self):
        self.handler = handler_of(os.environ["PEER_CASE"])

    def deserialize(self, data):
        return data

    def forward(self, data):
        return self.handler.handle([{"body": data}], None)[0]

    def serialize(self, data):
        return data.encode()


class Single(Worker):
    """A handler that gets what JSON holds, and returns the same, which Mosec reads and writes."""

    def __init__(self):
        self.handler = handler_of(os.environ["PEER_CASE"])

    def forward(self, data):
        return self.handler.handle([{"body": data}], None)[0]


class Batched(Single):
    """The same with several requests at a time."""

    def forward(self, data):
        return self.handler.handle([{"body": each} for each in data], None)


if __name__ == "__main__":
    case, port = sys.argv[1], sys.argv[2]
    # Its processes and Mosec itself read the command line, too.
    os.environ["PEER_CASE"] = case
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", port]
    server = Server()
    if case in BATCHES:
        server.append_worker(Batched, num=1, max_batch_size=BATCHES[case], max_wait_time=5)
    else:
        server.append_worker(Single if case in JSON else Raw, num=1)
    server.run()
