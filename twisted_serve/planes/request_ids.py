# SPDX-License-Identifier: Apache-2.0
"""
Make the ids of requests, the same for every transport.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import getrandbits

# The characters of a client's request id: none that could end a header, a log line, or an id in a list of ids.
_CLIENT_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def client_id_of(values: Sequence[bytes] | None) -> str | None:
    """
    Return the client's request id; ``None`` if it is missing or invalid.

    :param values: The values of all ``X-Request-Id`` headers.
    """
    if values is None or len(values) != 1 or not _CLIENT_ID.fullmatch(values[0]):
        return None
    return values[0].decode("ascii")


def fresh_id() -> str:
    """Return a new UUID for a request without a client's id."""
    # Not a secret, so a fast generator will do, as this runs for every request.
    bits = f"{getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


def with_suffix(client_id: str) -> str:
    """
    Return the id for workers of a request that has a client's id, with a random suffix.

    Two clients may use the same id at the same time, and each must get its own response.
    """
    return f"{client_id}.{getrandbits(64):016x}"


def id_for_worker(client_id: str | None, answer_id: str) -> str:
    """Return the id of a request for workers and their metrics: the response's, unless a client chose that."""
    return answer_id if client_id is None else with_suffix(answer_id)
