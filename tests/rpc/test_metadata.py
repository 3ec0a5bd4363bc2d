# SPDX-License-Identifier: Apache-2.0
"""The values of gRPC's headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_serve.errors import BadRequest
from twisted_serve.rpc.metadata import (
    MOST_TEXT,
    MOST_TIMEOUT,
    decoded_binary,
    decoded_text,
    encoded_binary,
    encoded_text,
    seconds_of,
)

UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@given(st.integers(0, 10**8 - 1), st.sampled_from(sorted(UNITS)))
def test_a_timeout_is_up_to_eight_digits_and_a_unit_and_a_day_at_most(number: int, unit: str) -> None:
    assert seconds_of(f"{number}{unit}".encode()) == min(number * UNITS[unit], MOST_TIMEOUT)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"S",
        b"1",
        b"1s",
        b"-1S",
        b"+1S",
        b"1 S",
        b" 1S",
        b"1_0S",
        b"1.5S",
        b"123456789n",
        b"1SS",
        b"1S\n",
        "٣S".encode(),
    ],
)
def test_any_other_timeout_is_refused_by_name(value: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^grpc-timeout must be .*H M S m u n, not '"):
        seconds_of(value)


@given(st.text())
def test_a_text_of_a_status_is_what_the_client_decodes(text: str) -> None:
    encoded = encoded_text(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert len(encoded) <= MOST_TEXT
    if len(encoded) < MOST_TEXT - 12:
        assert decoded_text(encoded) == text.encode("utf-8", "replace").decode()


@given(st.text(min_size=1, max_size=5), st.integers(0, 12))
def test_a_long_text_is_cut_between_characters(text: str, before: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    long = "x" * before + text * MOST_TEXT
    decoded = decoded_text(encoded_text(long))
    assert len(decoded) >= MOST_TEXT // 12 - 3
    assert long.startswith(decoded)


@given(st.binary(), st.booleans())
def test_binary_metadata_comes_back_with_and_without_padding(value: bytes, padded: bool) -> None:
    encoded = encoded_binary(value)
    assert b"=" not in encoded
    assert decoded_binary(encoded + b"=" * (-len(encoded) % 4 if padded else 0)) == value


@pytest.mark.parametrize("value", [b"a", b"a===", b"ab\n=", b"a b=", b"\xff\xff", b"ab=c"])
def test_other_binary_metadata_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^Binary metadata must be base64, not "):
        decoded_binary(value)
