# SPDX-License-Identifier: Apache-2.0
"""
This module implements the time which a client says that it waits for an answer.
"""

from __future__ import annotations

from twisted_serve.errors import BadRequest
from twisted_serve.web.http.request import ServeRequest

#: How long a client waits for the first sign of an answer, in milliseconds from when its request began to arrive.
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_NAME = TIMEOUT_HEADER.encode("ascii")
#: A day; nobody waits longer, and the clock's arithmetic stays exact.
MOST_TIMEOUT = 24 * 3600 * 1000


def deadline_of(request: ServeRequest) -> float | None:
    """
    Say when the client stops waiting, in seconds of the clock, if it does.

    :raise BadRequest: for a header that is no number of milliseconds.
    """
    given = None if request.plain else request.requestHeaders.getRawHeaders(_NAME)
    if given is None:
        return None
    value = b", ".join(given)
    # Digits and few of them: int() takes blanks and underscores, and as many digits as there is time for.
    if not (value.isdigit() and len(value) <= 9 and 1 <= int(value) <= MOST_TIMEOUT):
        raise BadRequest(
            f"{TIMEOUT_HEADER} must be from 1 to {MOST_TIMEOUT} milliseconds, not {value.decode('latin-1')!r:.200}."
        )
    return request.began + int(value) / 1000
