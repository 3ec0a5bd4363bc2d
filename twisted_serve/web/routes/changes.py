# SPDX-License-Identifier: Apache-2.0
"""
This module implements what all routes that change something have in common: their parameters, and their answers.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from twisted_serve.errors import BadRequest
from twisted_serve.planes.management import Outcome
from twisted_serve.web.http.bodies import body_of, media_type
from twisted_serve.web.http.queries import as_boolean, as_integer, query_parameters
from twisted_serve.web.http.responses import Body, answer_status

_log = Logger("twisted_serve.web")

# Parameters are a few short values; to read megabytes of JSON would hold up all others.
_LONGEST_BODY = 1 << 16


def answer(request: IRequest, outcome: Outcome) -> Body:
    """Answer with the outcome of a change."""
    return answer_status(request, outcome.status, outcome.text)


def shielded(request: IRequest, change: Coroutine[Deferred[Any], Any, Outcome]) -> Deferred[Body]:
    """Answer with the outcome of a change, which goes on when the client leaves: half a change is worse than none."""
    outcome: Deferred[Outcome] = Deferred()

    def settle(result: Outcome | Failure) -> None:
        if not outcome.called:
            outcome.callback(result)
        elif isinstance(result, Failure):
            _log.warn("A change whose client had left failed: {error}", error=result.value)

    Deferred.fromCoroutine(change).addBoth(settle)
    return outcome.addCallback(lambda outcome: answer(request, outcome))


def given_parameters(request: IRequest) -> dict[str, str]:
    """
    Read what is asked for, from a JSON body or else from the query.

    :raise BadRequest: for a body that is no JSON object, and for what cannot be done.
    """
    content_type = request.requestHeaders.getRawHeaders(b"content-type", (b"",))[0].decode("latin-1")
    if media_type(content_type).lower() == "application/json":
        given = _json_parameters(body_of(request))
    else:
        given = dict(query_parameters(request))
    if as_boolean(given.get("s3_sse_kms"), False):
        raise BadRequest("Parameter s3_sse_kms: signed downloads are not supported.")
    return given


def wanted_number(given: dict[str, str], name: str, least: int) -> int | None:
    """Return a number, or ``None`` when it is absent, no number or too small: all of these leave it open."""
    number = as_integer(given.get(name), least - 1)
    return number if number >= least else None


def _json_parameters(body: bytes) -> dict[str, str]:
    """
    Read a JSON object as parameters: numbers and truth values may be spelled as strings, and strings as they are.

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
