# SPDX-License-Identifier: Apache-2.0
"""
Select the headers of a request that its handler sees, the same for every transport.

The server states the route to a handler in headers; a client cannot set these (``docs/torchserve/rest_api.md`` §3.1).
A key is for the server, not for the code of a model.  So is the name of the sender, which an application's authorizer
has given: the header ``principal`` of a client is dropped there.  A client's ``x-ts-key-name`` is always dropped, with
underscores in place of hyphens, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

#: The header with the name of the sender's key, where keys have names.
KEY_NAME = "x-ts-key-name"

# Handlers behind other servers are used to hyphens and underscores being the same (CGI's variables).
_SPELLINGS = frozenset("x{}ts{}key{}name".format(*marks).encode("ascii") for marks in product("-_", repeat=3))

_RESERVED = frozenset({b"url_path", b"explain", b"describe"}) | _SPELLINGS
_CREDENTIALS = frozenset({b"authorization", b"proxy-authorization"})

#: The header with the name of the sender, where an application's authorizer names one.
PRINCIPAL = "principal"

#: The headers that plug-ins do not see: they get the name of the sender as a value.
HIDDEN_FROM_PLUGINS = _CREDENTIALS | _SPELLINGS

#: The server's headers for a prediction, and for an explanation.
PREDICT: Mapping[str, str] = {"explain": "False"}
EXPLAIN: Mapping[str, str] = {"explain": "True"}


def hidden_headers(tokens: bool, principals: bool = False) -> frozenset[bytes]:
    """
    Return the lower-case names of the headers that handlers do not see.

    :param tokens: Whether token authorization is on; without it ``Authorization`` is the model's to check.
    :param principals: Whether an application's authorizer decides instead.
    """
    hidden = _RESERVED | _CREDENTIALS if tokens or principals else _RESERVED
    return hidden | {PRINCIPAL.encode("ascii")} if principals else hidden


def sender_header(principal: str, named_key: bool) -> dict[str, str]:
    """
    Return the header that tells a handler the name of the sender.

    :param named_key: Whether it is the name of a key; else an application's authorizer has given the name.
    """
    return {KEY_NAME if named_key else PRINCIPAL: principal}


def job_headers(headers: Iterable[tuple[bytes, bytes]], hidden: frozenset[bytes]) -> dict[str, str]:
    """
    Return the headers for a handler, as latin-1 text; the last of repeated ones counts.

    :param headers: The client's headers in order, spelled as received.
    :param hidden: As from `hidden_headers`.
    """
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name.lower() not in hidden}
