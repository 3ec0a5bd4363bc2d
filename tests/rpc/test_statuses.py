# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.rpc.statuses``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_serve import errors
from twisted_serve.errors import BadRequest, ServeError, ServiceUnavailable
from twisted_serve.rpc.statuses import Code, Status, code_of_http, status_of


def all_errors() -> Iterator[type[ServeError]]:
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, ServeError):
            yield each


@pytest.mark.parametrize("kind", list(all_errors()), ids=lambda kind: kind.__name__)
def test_code(kind: type[ServeError]) -> None:
    """Each error has a code of gRPC, and none is OK."""
    assert Code[kind.grpc_status] is not Code.OK


@given(st.integers(-1000, 10_000))
def test_http(status: int) -> None:
    """Each HTTP status of an error has a code, and none is OK; the range is that of the status."""
    code = code_of_http(status)
    assert code is not Code.OK
    assert (code is Code.UNKNOWN) == (not 400 <= status < 600)


def test_retry_after() -> None:
    assert status_of(ServiceUnavailable("x", 3)) == Status(Code.UNAVAILABLE, "x", ((b"retry-after", b"3"),))
    assert status_of(ServiceUnavailable("x")) == Status(Code.UNAVAILABLE, "x")


def test_reason() -> None:
    """The reason, which HTTP's JSON has as a member, is metadata."""
    status = status_of(BadRequest("x").because("ValueError: n\u00f6\nline"))
    assert status.metadata == ((b"reason", b"ValueError: n\\xf6 line"),)


@given(st.text(max_size=2000))
def test_any_reason(reason: str) -> None:
    """A reason of a handler makes no other header, and fits into the metadata of a client."""
    for _name, value in status_of(BadRequest("x").because(reason)).metadata:
        assert all(0x20 <= byte < 0x7F for byte in value)
        assert len(value) <= 1000
