# SPDX-License-Identifier: Apache-2.0
"""
Parse query parameters (``docs/torchserve/rest_api.md`` §2.2).

Clients rely on TorchServe's leniency: an invalid number means the default, and any word but ``true`` is false.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from twisted.web.iweb import IRequest

from twisted_serve.auth.targets import parse_target
from twisted_serve.errors import BadRequest

MOST_PARAMETERS = 1024

# Also used for a larger or missing limit (:meth:`Registry.names`).
MOST_ON_A_PAGE = 100

_INTEGER = re.compile(r"[+-]?[0-9]{1,10}", re.ASCII)

#: The smallest value of an integer parameter.
LEAST_INTEGER = -(2**31)
_INT_RANGE = range(LEAST_INTEGER, 2**31)


def as_integer(text: str | None, default: int) -> int:
    """Parse a 32-bit decimal integer; return ``default`` for anything else."""
    if text is not None and _INTEGER.fullmatch(text) and int(text) in _INT_RANGE:
        return int(text)
    return default


def as_boolean(text: str | None, default: bool) -> bool:
    """Return whether a text is ``true`` in any case; ``default`` if it is absent."""
    return default if text is None else text.lower() == "true"


def query_pairs(request: IRequest) -> list[tuple[str, str]]:
    """
    Parse the query of a request into pairs, in order.

    :raise BadRequest: for more than `MOST_PARAMETERS`.
    """
    query = parse_target(request.uri).query.replace(b";", b"&").decode("utf-8", "replace")
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise BadRequest(f"The query has more than {MOST_PARAMETERS} parameters.") from None


def query_parameters(request: IRequest) -> Mapping[str, str]:
    """
    Parse the query of a request into a mapping; a repeated name keeps its first value.

    :raise BadRequest: for more than `MOST_PARAMETERS`.
    """
    found: dict[str, str] = {}
    for name, value in query_pairs(request):
        found.setdefault(name, value)
    return found


def page_wanted(request: IRequest) -> tuple[int, int]:
    """
    Return the limit and offset of the requested page of a list (``docs/torchserve/rest_api.md`` §8.1).

    :raise BadRequest: as :func:`query_parameters`.
    """
    query = query_parameters(request)
    return as_integer(query.get("limit"), MOST_ON_A_PAGE), as_integer(query.get("next_page_token"), 0)
