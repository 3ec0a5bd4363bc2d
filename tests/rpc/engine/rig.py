# SPDX-License-Identifier: Apache-2.0
"""A factory with methods of each kind, on a clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_serve.errors import InternalError, ServeError
from twisted_serve.rpc.contracts import Admitted, ConversationCall, End, Kind, Method
from twisted_serve.rpc.engine import GrpcFactory, RpcLimits
from twisted_serve.rpc.statuses import Code, Status, status_of
from twisted_serve.testing.rpc import MemoryRpcCall, MemoryRpcConnection

REFUSAL = Status(Code.PERMISSION_DENIED, "Token Authorization failed.")


class KeyDoor:
    """Admits calls with the key ``key``; ``decision`` overrides that."""

    def __init__(self) -> None:
        self.decision: Any = None
        self.asked: list[tuple[bytes, tuple[bytes, ...]]] = []

    def ask(self, path: bytes, authorization: Sequence[bytes], peer: IAddress) -> Any:
        self.asked.append((path, tuple(authorization)))
        if self.decision is not None:
            return self.decision
        return Admitted("someone") if list(authorization) == [b"Bearer key"] else REFUSAL


class Talk:
    """A conversation that the test holds."""

    def __init__(self, call: ConversationCall) -> None:
        self.call = call
        self.messages: list[bytes] = []
        self.done = self.gone = 0

    def received(self, message: BytesValue) -> None:
        if message.value == b"raise":
            raise RuntimeError("a bug")
        self.messages.append(message.value)

    def half_closed(self) -> None:
        self.done += 1

    def cancelled(self) -> None:
        self.gone += 1


class Producer:
    """Records whether it is paused."""

    paused = False

    def pauseProducing(self) -> None:
        assert not self.paused
        self.paused = True

    def resumeProducing(self) -> None:
        assert self.paused
        self.paused = False

    def stopProducing(self) -> None:
        raise AssertionError


class Rig:
    """
    A listener with ``/s/Echo``, ``/s/Wait``, ``/s/Fail``, ``/s/Stream`` and ``/s/Talk``.

    :ivar waiting: The calls and Deferreds of ``Wait`` and ``Stream``.
    :ivar talks: The conversations of ``Talk``.
    :ivar cancelled: How many Deferreds were cancelled.
    """

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.door = KeyDoor()
        self.ends: list[End] = []
        self.waiting: list[tuple[Any, Any, Deferred[Any]]] = []
        self.talks: list[Talk] = []
        self.cancelled = 0
        self.threads: list[tuple[Any, tuple[Any, ...], Deferred[Any]]] | None = None
        methods = [
            Method("/s/Echo", Kind.UNARY, BytesValue, lambda call, message: message),
            Method("/s/Wait", Kind.UNARY, BytesValue, self._wait),
            Method("/s/Fail", Kind.UNARY, BytesValue, self._fail, self._status_of),
            Method("/s/Stream", Kind.SERVER_STREAMING, BytesValue, self._wait),
            Method("/s/Talk", Kind.BIDIRECTIONAL, BytesValue, self._talk),
        ]
        self.factory = GrpcFactory(
            {method.path.encode(): method for method in methods},
            self.door,
            self.ends.append,
            RpcLimits(**limits),
            self.clock,
            self._defer_to_thread,
            shown=lambda detail: f"shown: {detail}",
        )

    def connect(self, **arguments: Any) -> MemoryRpcConnection:
        return MemoryRpcConnection(self.factory, lambda: self.clock.advance(0), **arguments)

    def advance(self, seconds: float, *connections: MemoryRpcConnection) -> None:
        self.clock.advance(seconds)
        for connection in connections:
            connection.pump()

    def answer(self, value: bytes, connection: MemoryRpcConnection, index: int = -1) -> None:
        """Answer a waiting call."""
        self.waiting[index][2].callback(BytesValue(value=value))
        self.advance(0, connection)

    @property
    def codes(self) -> list[str]:
        return [end.code.name for end in self.ends]

    def _wait(self, call: Any, message: BytesValue) -> Deferred[Any]:
        def cancel(_waiting: Deferred[Any]) -> None:
            self.cancelled += 1

        waiting: Deferred[Any] = Deferred(cancel)
        self.waiting.append((call, message, waiting))
        return waiting

    def _fail(self, call: Any, message: BytesValue) -> BytesValue:
        raise ServeError("as told") if message.value == b"known" else RuntimeError("a secret")

    def _status_of(self, error: ServeError) -> Status:
        return Status(Code.ABORTED, f"of Fail: {error.message}") if error.message == "as told" else status_of(error)

    def _talk(self, call: ConversationCall) -> Talk:
        self.talks.append(Talk(call))
        return self.talks[-1]

    def _defer_to_thread(self, work: Any, /, *args: object) -> Deferred[Any]:
        if self.threads is None:
            return maybeDeferred(work, *args)
        result: Deferred[Any] = Deferred()
        self.threads.append((work, args, result))
        return result


def message(value: bytes) -> BytesValue:
    return BytesValue(value=value)


def values(call: MemoryRpcCall) -> list[bytes]:
    return [parsed.value for parsed in call.parsed(BytesValue)]


def unknown() -> Failure:
    return Failure(InternalError("it went wrong"))


__all__ = ["REFUSAL", "IPushProducer", "KeyDoor", "Producer", "Rig", "Talk", "message", "unknown", "values"]
