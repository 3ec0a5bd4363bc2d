# SPDX-License-Identifier: Apache-2.0
"""Tests for the errors of :mod:`twisted_serve.subcommands.client`: what an answer means for the user."""

from __future__ import annotations

from http.client import HTTPMessage

import pytest

from twisted_serve.subcommands.client import Answer, expect
from twisted_serve.subcommands.outcomes import Failed, NotAuthorized

BEARER = 'Bearer realm="twisted_serve"'


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Return an answer; underscores in names of headers are hyphens."""
    message = HTTPMessage()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Answer(status, message, body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"code": 404, "message": "Not here"}', "Not here"),
        (b'{"message": "Prediction failed", "reason": "ValueError: x"}', "Prediction failed: ValueError: x"),
        (b'{"error": "as KServe says it"}', "as KServe says it"),
        (b"plain \xff", "plain \ufffd"),
        (b"", "status 404"),
        (b"[" * 100_000, "[" * 4000),
        (b"{}", "{}"),
    ],
)
def test_message(body: bytes, message: str) -> None:
    """The error is in the server's words, whatever form it has."""
    refusal = answer(404, body).refusal()
    assert refusal is not None
    assert type(refusal) is Failed
    assert refusal.message == message


@pytest.mark.parametrize(
    ("status", "challenge", "words"),
    [
        (400, BEARER, "does not accept the key"),
        (401, "", "does not accept the key"),
        (403, f'{BEARER}, error="insufficient_scope"', "no scope"),
    ],
)
def test_not_authorized(status: int, challenge: str, words: str) -> None:
    """A refusal of the key is known by its challenge, whatever its status."""
    refusal = answer(status, b'{"message": "no scope"}', WWW_Authenticate=challenge).refusal()
    assert isinstance(refusal, NotAuthorized)
    assert words in refusal.message


def test_no_key() -> None:
    """Without a key it is said how to give one."""
    refusal = answer(400, WWW_Authenticate=BEARER).refusal(with_key=False)
    assert isinstance(refusal, NotAuthorized)
    assert "set TS_KEY" in refusal.message


def test_fine() -> None:
    """Below 400 there is no error; a bad request is none of the key."""
    assert answer(202).refusal() is None
    assert type(answer(400, b'{"message": "m"}').refusal()) is Failed


def test_later() -> None:
    """A limit says when to come again."""
    refusal = answer(429, b'{"message": "Too many."}', Retry_After="7").refusal()
    assert refusal is not None
    assert refusal.message == "Too many. Try again in 7 s."


def test_expected() -> None:
    """Answers of another server are an error, not a traceback."""
    assert expect({"a": [1]}, list, "a") == [1]
    values: list[object] = [{}, [], None, {"a": None}]
    for value in values:
        with pytest.raises(Failed, match="is this the address of a twisted_serve server"):
            expect(value, list, "a")
    for body in (b"", b"<html>", b"\xff", b"[" * 100_000):
        with pytest.raises(Failed, match="is this the address of a twisted_serve server"):
            answer(200, body).json()
