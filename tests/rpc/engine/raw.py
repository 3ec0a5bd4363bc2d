# SPDX-License-Identifier: Apache-2.0
"""A client that sends frames as a test writes them, valid or not."""

from __future__ import annotations

from typing import Any

from hpack import Encoder

from tests.rpc.engine.rig import Rig
from twisted_serve.rpc.engine import wire
from twisted_serve.testing.rpc import MemoryRpcConnection

FIELDS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/s/Wait",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
    "authorization": "Bearer key",
}


class RawClient:
    """
    A client without any rules.

    :param greets: Whether the preface and empty settings are sent at once.
    """

    def __init__(self, rig: Rig, greets: bool = True) -> None:
        self.rig = rig
        self._connection = MemoryRpcConnection(rig.factory, lambda: rig.clock.advance(0), greet=False)
        # Read here, not by h2.
        self._connection.pump = lambda: None  # type: ignore[method-assign]
        self.transport = self._connection.transport
        self._encoder = Encoder()
        if greets:
            self.send(wire.PREFACE + wire.settings({}))
            self.frames()

    def is_open(self) -> bool:
        return self._connection.open

    def send(self, *data: bytes) -> None:
        self._connection.send_raw(b"".join(data))

    def block(self, **fields: str | None) -> bytes:
        """Encode the head of a call; names have underscores, and ``pseudo_`` stands for a colon."""
        named = {name.replace("pseudo_", ":").replace("_", "-"): value for name, value in fields.items()}
        return bytes(self._encoder.encode([(k, v) for k, v in {**FIELDS, **named}.items() if v is not None]))

    def encode(self, fields: list[tuple[str, str]]) -> bytes:
        return bytes(self._encoder.encode(fields))

    def begin(self, stream: int, **fields: str | None) -> None:
        self.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, self.block(**fields)))

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Return the type, flags, stream and payload of each frame since the last call."""
        data = self.transport.value()
        self.transport.clear()
        found = []
        while data:
            size = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
            data = data[9 + size :]
        return found

    def going(self) -> tuple[wire.Reason, str] | None:
        """Return the reason and text of the GOAWAY that has come, if any."""
        for kind, _flags, _stream, payload in self.frames():
            if kind == wire.GOAWAY:
                return wire.Reason(int.from_bytes(payload[4:8], "big")), payload[8:].decode()
        return None

    def resets(self) -> dict[int, wire.Reason]:
        """Return the streams that were reset, with the reasons."""
        return {
            stream: wire.Reason(int.from_bytes(payload, "big"))
            for kind, _flags, stream, payload in self.frames()
            if kind == wire.RST_STREAM
        }


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> Any:
    return wire.frame(kind, flags, stream, payload)
