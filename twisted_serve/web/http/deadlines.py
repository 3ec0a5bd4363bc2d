# SPDX-License-Identifier: Apache-2.0
"""
Read the client's deadline from a request header.
"""

from __future__ import annotations

from twisted_serve.errors import BadRequest
from twisted_serve.web.http.request import ServeRequest

#: How long the client waits for the first byte of a response, in milliseconds after its request began to arrive.
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_NAME = TIMEOUT_HEADER.encode("ascii")
#: A day in milliseconds; longer than any client waits, and short enough for exact floating-point arithmetic.
MOST_TIMEOUT = 24 * 3600 * 1000


def deadline_of(request: ServeRequest) -> float | None:
    """
    Return the client's deadline in seconds of the clock; ``None`` if the request has none.

    :raise BadRequest: for a header that is not a valid number of milliseconds.
    """
    given = None if request.plain else request.requestHeaders.getRawHeaders(_NAME)
    if given is None:
        return None
    value = b", ".join(given)
    # A few digits only: int() also accepts blanks and underscores, and is slow for very many digits.
    if not (value.isdigit() and len(value) <= 9 and 1 <= int(value) <= MOST_TIMEOUT):
        raise BadRequest(
            f"{TIMEOUT_HEADER} must be from 1 to {MOST_TIMEOUT} milliseconds, not {value.decode('latin-1')!r:.200}."
        )
    return request.began + int(value) / 1000
