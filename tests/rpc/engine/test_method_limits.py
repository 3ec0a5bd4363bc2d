# SPDX-License-Identifier: Apache-2.0
"""Messages of methods that have a limit of their own."""

from __future__ import annotations

import gzip

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from tests.rpc.engine.rig import Rig, message, values
from twisted_serve.rpc.contracts import Kind, Method
from twisted_serve.testing.rpc import MemoryRpcCall

# A message has two bytes before its value.
MOST = 100
FITS = message(b"x" * (MOST - 2))
TOO_LARGE = message(b"x" * (MOST - 1))


def ask(sent: BytesValue | bytes, most: int | None, coding: str | None = None, limit: int = 1000) -> MemoryRpcCall:
    """Return a call of a method with a limit, on a listener with another."""
    rig = Rig(message=limit)
    rig.factory.methods = {b"/s/Small": Method("/s/Small", Kind.UNARY, BytesValue, lambda _call, got: got, most=most)}
    connection = rig.connect()
    if coding is None:
        return connection.call("/s/Small", sent, "key")
    call = connection.begin("/s/Small", "key", metadata=[("grpc-encoding", coding)])
    packed = gzip.compress(sent if isinstance(sent, bytes) else sent.SerializeToString())
    call.send_data(b"\1" + len(packed).to_bytes(4, "big") + packed, end=True)
    return call


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_largest_message(coding: str | None) -> None:
    call = ask(FITS, MOST, coding)
    assert (values(call), call.code) == ([FITS.value], 0)


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_message_is_too_large(coding: str | None) -> None:
    call = ask(TOO_LARGE, MOST, coding)
    assert (values(call), call.code) == ([], 8)
    assert str(MOST) in call.text


@pytest.mark.parametrize("most", [None, 100000])
def test_limit_of_the_listener_counts(most: int | None) -> None:
    assert ask(message(b"x" * 900), most).code == 0
    assert ask(message(b"x" * 1000), most).code == 8


def test_refused_at_the_prefix() -> None:
    """A client that announces much is answered before it has sent that."""
    rig = Rig()
    rig.factory.methods = {b"/s/Small": Method("/s/Small", Kind.UNARY, BytesValue, lambda _call, got: got, most=MOST)}
    call = rig.connect().begin("/s/Small", "key")
    call.send_data(b"\0" + (MOST + 1).to_bytes(4, "big"))
    assert (call.code, call.over) == (8, True)
