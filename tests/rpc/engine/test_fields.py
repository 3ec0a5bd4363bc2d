# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.rpc.engine.fields``."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_serve.rpc.engine.fields import has_more_fields
from twisted_serve.rpc.messages import ModelInferRequest, PredictionsRequest
from twisted_serve.rpc.methods import INFERENCE, KSERVE
from twisted_serve.testing.server import MemoryServer

# Makes each message a large one: a field that no message has.
PADDING = b"\xfa\x01\x80\x80\x04" + bytes(1 << 16)


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(0, 25))
def test_entries(entries: list[bytes], most: int) -> None:
    """Each entry of a map is a field, whatever is in it."""
    message = PredictionsRequest(model_name="m", input={str(i): entry for i, entry in enumerate(entries)})
    assert has_more_fields(message.SerializeToString() + PADDING, most) == (len(entries) + 2 > most)


def test_small() -> None:
    """A small message is not looked at."""
    assert not has_more_fields(b"\x1a\x00" * 1000, 10)
    assert has_more_fields(b"\x1a\x00" * (1 << 16), 10)


@pytest.mark.parametrize(
    "field",
    [b"\x1a\x00", b"\x08\x01", b"\x08" + b"\xff" * 9 + b"\x01", b"\x09" + bytes(8), b"\x0d" + bytes(4), b"\x1b\x1c"],
    ids=["length", "varint", "long varint", "64 bits", "32 bits", "group"],
)
def test_kinds(field: bytes) -> None:
    """Fields of all wire types count, and those in groups, which nothing hides from the count."""
    count = (1 << 17) // len(field)
    assert has_more_fields(field * count, 1000)
    assert not has_more_fields(field * 10 + PADDING, 30)


@given(st.binary(max_size=2000))
@example(b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\xff" * 20)
@example(b"\x0f")
def test_any_bytes(data: bytes) -> None:
    """No bytes break the count; what is no message is the parser's to refuse."""
    has_more_fields(data + PADDING, 5)
    has_more_fields(PADDING + data, 5)


@given(st.binary(max_size=60), st.integers(0, 30))
def test_never_fewer_than_parsed(data: bytes, most: int) -> None:
    """What the parser finds has been counted."""
    message = data + PADDING
    for kind in (PredictionsRequest, ModelInferRequest):
        try:
            parsed = kind.FromString(message)
        except Exception:
            continue
        found = len(parsed.input) if isinstance(parsed, PredictionsRequest) else len(parsed.inputs)
        if found > most:
            assert has_more_fields(message, most)


def test_prediction() -> None:
    """A prediction with a million inputs is refused before it is parsed, and one with a large input is not."""
    with MemoryServer({"disable_token_authorization": True}, models={"m": {}}) as server:
        path = f"/{INFERENCE}/Predictions"
        for method in ("Predictions", "StreamPredictions", "StreamPredictions2"):
            call = server.grpc().call(f"/{INFERENCE}/{method}", b"\x0a\x01m" + b"\x1a\x00" * (1 << 18))
            assert (call.code, call.text) == (3, "The message has more than 1010 fields.")
        for method in ("ModelInfer", "ModelStreamInfer"):
            # Field 5 of an inference request is a tensor.
            call = server.grpc().call(f"/{KSERVE}/{method}", b"\x0a\x01m" + b"\x2a\x00" * (1 << 18))
            assert (call.code, call.text) == (3, "The message has more than 1010 fields.")
        message = PredictionsRequest(model_name="m", input={"data": bytes(1 << 18)})
        assert server.grpc().call(path, message).code == 0
