# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twisted_serve.rpc.services.jobs``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.rpc.services.service_case import RecordingCall
from twisted_serve.rpc.messages import PredictionsRequest
from twisted_serve.rpc.services.jobs import HandlerHeaders, parts_of

SECRET = {"authorization", "proxy-authorization"}
SERVERS = {"explain", "describe", "url_path", "te", "content-type", "user-agent", "grpc-timeout", "x-bin"}

NAMES = st.sampled_from(sorted(SECRET | SERVERS | {"principal", "a", "grpc", "bin", "x-binary"}))
METADATA = st.lists(st.tuples(NAMES.map(str.encode), st.binary(max_size=5)), max_size=10)


@given(METADATA, st.booleans(), st.booleans(), st.none() | st.just("them"))
def test_headers(metadata: list[tuple[bytes, bytes]], tokens: bool, principals: bool, principal: str | None) -> None:
    """A handler sees what is the client's, the last value of each name, and the principal of the authorizer alone."""
    headers = HandlerHeaders(tokens, principals).of(RecordingCall(metadata, principal=principal))
    sent = {name.decode(): value.decode("latin-1") for name, value in metadata}
    hidden = SERVERS | (SECRET if tokens or principals else set()) | ({"principal"} if principals else set())
    expected = {name: value for name, value in sent.items() if name not in hidden}
    if principal is not None:
        expected["principal"] = principal
    assert headers == expected


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.binary(max_size=5)))
def test_parts(inputs: dict[str, bytes]) -> None:
    """Each input is a part with its bytes, and the order of the map does not matter."""
    parts = parts_of(PredictionsRequest(input=inputs))
    assert {part.name: part.value for part in parts} == inputs
    assert {(part.content_type, part.decode) for part in parts} <= {("", False)}
    assert parts == parts_of(PredictionsRequest(input=dict(reversed(inputs.items()))))
