# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in what a request has to present.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from hmac import compare_digest

from tests.testing.planted.bug import Concern, Planted, replacing
from twisted_serve.auth import gate
from twisted_serve.auth.gate import bearer_token
from twisted_serve.auth.keyring import Granted, Keyring, Reason, Refused
from twisted_serve.auth.tokens import Token, TokenKind

_check = Keyring.check


def _also(ranked: Callable[[TokenKind], Sequence[TokenKind]]) -> Callable[..., Granted | Refused]:
    """Accept keys of further kinds."""

    def check(self: Keyring, kind: TokenKind, presented: bytes, now: datetime) -> Granted | Refused:
        verdicts = [_check(self, each, presented, now) for each in (kind, *ranked(kind))]
        return next((each for each in verdicts if isinstance(each, Granted)), verdicts[0])

    return check


def _last_header(headers: Sequence[bytes]) -> bytes | Reason:
    return bearer_token(headers[-1:])


def _first_header(headers: Sequence[bytes]) -> bytes | Reason:
    return bearer_token(headers[:1])


def _any_scheme(headers: Sequence[bytes]) -> bytes | Reason:
    return bearer_token([b"Bearer " + header.split(b" ")[-1] for header in headers])


def _beginning(self: Token, presented: bytes) -> bool:
    return bool(presented) and self.encoded.startswith(presented)


def _any_case(self: Token, presented: bytes) -> bool:
    return compare_digest(self.encoded.lower(), presented.lower())


_MANAGEMENT, _INFERENCE, _API = TokenKind

BUGS = (
    Planted(
        "the management key opens inference",
        Concern.REQUEST,
        r"the management key opened GET /ping at [-\d:. ]+, which needs the inference key$",
        replacing(Keyring, check=_also(lambda kind: [_MANAGEMENT] if kind is _INFERENCE else [])),
    ),
    Planted(
        "the API key opens all",
        Concern.REQUEST,
        r"the API key opened GET /models at [-\d:. ]+, which needs the management key$",
        replacing(Keyring, check=_also(lambda kind: [_API])),
    ),
    Planted(
        "the management key rotates",
        Concern.REQUEST,
        r"the management key opened POST /token\?type=(management|inference) at ",
        replacing(Keyring, check=_also(lambda kind: [_MANAGEMENT] if kind is _API else [])),
    ),
    Planted(
        "the last of two headers opens",
        Concern.REQUEST,
        r"the (management|inference) key, presented as .*, opened GET /(models|ping) at ",
        replacing(gate, bearer_token=_last_header),
    ),
    Planted(
        "the first of two headers opens",
        Concern.REQUEST,
        r"the (management|inference) key, presented as .*, opened GET /(models|ping) at ",
        replacing(gate, bearer_token=_first_header),
    ),
    Planted(
        "any scheme opens",
        Concern.REQUEST,
        r"the (management|inference) key, presented as .*, opened GET /(models|ping) at ",
        replacing(gate, bearer_token=_any_scheme),
    ),
    Planted(
        "the beginning of a key opens",
        Concern.REQUEST,
        r"the (management|inference) key, presented as .*, opened GET /(models|ping) at ",
        replacing(Token, is_secret=_beginning),
    ),
    Planted(
        "a key in another case opens",
        Concern.REQUEST,
        r"the (management|inference) key, presented as upper and lower case swapped, opened GET /(models|ping) at ",
        replacing(Token, is_secret=_any_case),
    ),
)
