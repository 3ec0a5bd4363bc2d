# SPDX-License-Identifier: Apache-2.0
"""
Parse the parameters of requests that change the server, and respond with the outcome.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from twisted_serve.errors import BadRequest
from twisted_serve.planes import changes
from twisted_serve.planes.inputs import media_type
from twisted_serve.planes.management import Outcome
from twisted_serve.planes.registrar import refuse_signed
from twisted_serve.web.http.queries import as_boolean, as_integer, query_parameters
from twisted_serve.web.http.request import body_of
from twisted_serve.web.http.responses import Body, answer_status

# In bytes. Parameters are a few short values; parsing megabytes of JSON would block the reactor.
_LONGEST_BODY = 1 << 16


def answer(request: IRequest, outcome: Outcome) -> Body:
    """Respond with the outcome of a change."""
    return answer_status(request, outcome.status, outcome.text)


def shielded(request: IRequest, change: Coroutine[Deferred[Any], Any, Outcome]) -> Deferred[Body]:
    """Respond with the outcome of a change, which is completed even if the client disconnects."""
    return changes.shielded(change).addCallback(lambda outcome: answer(request, outcome))


def given_parameters(request: IRequest) -> dict[str, str]:
    """
    Parse the parameters of a request, from a JSON body or else from the query.

    :raise BadRequest: for a body that is no JSON object, and for a parameter that is not supported.
    """
    content_type = request.requestHeaders.getRawHeaders(b"content-type", (b"",))[0].decode("latin-1")
    if media_type(content_type).lower() == "application/json":
        given = _json_parameters(body_of(request))
    else:
        given = dict(query_parameters(request))
    refuse_signed(as_boolean(given.get("s3_sse_kms"), False))
    return given


def wanted_number(given: dict[str, str], name: str, least: int) -> int | None:
    """Return a number, or ``None`` if the parameter is absent, no number or below ``least``."""
    number = as_integer(given.get(name), least - 1)
    return number if number >= least else None


def _json_parameters(body: bytes) -> dict[str, str]:
    """
    Parse a JSON object as parameters; numbers and booleans may be given as strings, too.

    :raise BadRequest: for anything but a JSON object of plain values.
    """
    if len(body) > _LONGEST_BODY:
        raise BadRequest(f"The JSON body has {len(body)} bytes; parameters have at most {_LONGEST_BODY}.")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"The JSON body cannot be read: {e}.") from None
    if not isinstance(given, dict):
        raise BadRequest("The JSON body is not an object.")
    parameters = {}
    for name, value in given.items():
        if isinstance(value, (dict, list)):
            raise BadRequest(f"Parameter {name} must be a plain value, not {json.dumps(value)}.")
        if value is not None:
            parameters[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return parameters
