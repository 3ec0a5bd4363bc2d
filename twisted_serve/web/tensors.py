# SPDX-License-Identifier: Apache-2.0
"""
This module implements inference from tensors over HTTP: a request's tensors to a handler, and its outputs back.

A handler, or the envelope before it, sees JSON, whatever the client has sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from twisted_serve.errors import BadRequest
from twisted_serve.openinference.answers import write_answer
from twisted_serve.openinference.requests import LENGTH_HEADER, Wanted, read_request
from twisted_serve.web.answers import Answer
from twisted_serve.web.bodies import body_of, media_type
from twisted_serve.web.jobs import Predictor, Response, content_type_of
from twisted_serve.web.request import ServeRequest
from twisted_serve.wire.messages import Item, Part

_JSON = "application/json"


def infer(
    predictor: Predictor, request: ServeRequest, model: str, version: str | None, told: Mapping[str, str]
) -> Deferred[Answer]:
    """
    Answer a request for inference; as :meth:`Predictor.answer`, but with tensors.

    A body which is neither JSON nor has binary tensors is the handler's to understand.

    :raise BadRequest: naming the field that is wrong.
    """
    length = _json_length(request)
    if request.method == b"OPTIONS" or (length is None and media_type(content_type_of(request)).lower() != _JSON):
        return predictor.answer(request, model, version, told)
    # Before anything is made of the tensors.
    predictor.plane.find(model, version)
    read = read_request(body_of(request), length)
    response = Response(request)
    answer = predictor.submit(request, model, version, told, [Part("body", _JSON, read.body)], response)
    return answer.addCallback(lambda item: response.finish(_as_wanted(item, read.wanted, response)))


def _json_length(request: ServeRequest) -> str | None:
    """
    Return how long a request says its JSON is, ``None`` if it does not.

    :raise BadRequest: if it says so more than once.
    """
    said = request.requestHeaders.getRawHeaders(LENGTH_HEADER.encode("ascii"))
    if said is None:
        return None
    if len(said) > 1:
        raise BadRequest(f"{LENGTH_HEADER} is there {len(said)} times.")
    return str(said[0].decode("latin-1"))


def _as_wanted(item: Item, wanted: Wanted, response: Response) -> Item:
    """Put the outputs which the client wants so in binary; not in a handler's error, nor in the end of a stream."""
    if item.status >= 300 or response.streaming:
        return item
    answer = write_answer(item.body, wanted)
    if answer.json_size is None:
        return item
    headers = {name: value for name, value in item.headers.items() if name.lower() != "content-type"}
    headers |= {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(answer.json_size)}
    return replace(item, body=answer.body, headers=headers)
