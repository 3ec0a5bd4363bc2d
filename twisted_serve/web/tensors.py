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
from twisted_serve.openinference.answers import InferAnswer, write_answer
from twisted_serve.openinference.requests import LENGTH_HEADER, read_request
from twisted_serve.web.answers import Answer
from twisted_serve.web.bodies import body_of, media_type
from twisted_serve.web.jobs import Predictor, Response, content_type_of
from twisted_serve.web.request import ServeRequest
from twisted_serve.wire.messages import Item, Part

_JSON = "application/json"

# A larger body is read in a thread: all others would wait as long as that takes.
MOST_AT_ONCE = 1 << 17


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
    return Deferred.fromCoroutine(_infer(predictor, request, model, version, told, length))


async def _infer(
    predictor: Predictor,
    request: ServeRequest,
    model: str,
    version: str | None,
    told: Mapping[str, str],
    length: str | None,
) -> Answer:
    body = body_of(request)
    if len(body) > MOST_AT_ONCE:
        read = await predictor.defer_to_thread(read_request, body, length)
    else:
        read = read_request(body, length)
    response = Response(request)
    asked = predictor.submit(request, model, version, told, [Part("body", _JSON, read.body)], response)
    item = await asked.addErrback(response.fail)
    # An answer with an error is the handler's, and what ends a stream is no whole answer.
    if item.status < 300 and not response.streaming and read.wanted.any():
        if len(item.body) > MOST_AT_ONCE:
            answer = await predictor.defer_to_thread(write_answer, item.body, read.wanted)
        else:
            answer = write_answer(item.body, read.wanted)
        item = _in_binary(item, answer)
    return response.finish(item)


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


def _in_binary(item: Item, answer: InferAnswer) -> Item:
    """Give a handler's answer the body which the client wants, if it is another."""
    if answer.json_size is None:
        return item
    headers = {name: value for name, value in item.headers.items() if name.lower() != "content-type"}
    headers |= {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(answer.json_size)}
    return replace(item, body=answer.body, headers=headers)
