# SPDX-License-Identifier: Apache-2.0
"""
The server's end of the sockets to its processes, for tests that are the server: one message at a time.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Generic, TypeVar

from msgspec import Struct

from twisted_serve.wire.codec import FrameReader, encode, server_reader
from twisted_serve.wire.messages import FromWorker, Job, LoadModel, Part, Predict, Predicted

_M = TypeVar("_M")


class ProcessSocket(Generic[_M]):
    """A socket to a process; whoever waits for a message waits a minute at most."""

    def __init__(self, connection: socket.socket, reader: FrameReader[_M]) -> None:
        connection.settimeout(60)
        self._connection = connection
        self._reader = reader

    def say(self, message: Struct, *descriptors: int) -> None:
        """Send a message, and descriptors beside it."""
        socket.send_fds(self._connection, [encode(message)], descriptors)

    def hear(self) -> _M | None:
        """Wait for the next message; ``None`` at the end."""
        while True:
            for message in self._reader.messages():
                return message
            data = self._connection.recv(1 << 16)
            if not data:
                return None
            self._reader.receive(data)

    def close(self) -> None:
        """Close our end."""
        self._connection.close()


class WorkerSocket(ProcessSocket[FromWorker]):
    """A socket to a worker, whose handler evaluates what it is sent."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, server_reader())

    def load(self, model_dir: Path) -> None:
        """Have it become a worker of the model in a directory, whose handler is in ``h.py``."""
        self.say(LoadModel("m", "1.0", str(model_dir), "h.py", 1, {}, {}, "0"))

    def ask(self, code: str, number: int = 1) -> None:
        """Send it code."""
        self.say(Predict(number, [Job(f"r{number}", {}, [Part("body", "", code.encode())])]))

    def answer(self, code: str) -> bytes:
        """Send it code, and wait for the result."""
        self.ask(code)
        heard = self.hear()
        assert isinstance(heard, Predicted), heard
        return heard.items[0].body
