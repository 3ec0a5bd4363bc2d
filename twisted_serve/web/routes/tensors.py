# SPDX-License-Identifier: Apache-2.0
"""
This module implements inference from tensors over HTTP: a request's tensors to a handler, and its outputs back.

A handler, or the envelope before it, sees JSON, whatever the client has sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import BadRequest
from twisted_serve.openinference.answers import InferAnswer, write_answer
from twisted_serve.openinference.requests import LENGTH_HEADER, read_request
from twisted_serve.web.http.bodies import body_of, media_type
from twisted_serve.web.http.rendering import json_text
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body
from twisted_serve.web.routes.predictions import Predictor, Response, content_type_of
from twisted_serve.wire.messages import Item, Part

_JSON = "application/json"
_LENGTH = LENGTH_HEADER.encode("ascii")

# A larger body is read in a thread: all others would wait as long as that takes.
MOST_AT_ONCE = 1 << 17

# So many blanks may stand before an object.
_LONGEST_BLANK = 64


def infer(
    predictor: Predictor, request: ServeRequest, model: str, version: str | None, told: Mapping[str, str]
) -> Deferred[Body]:
    """
    Answer a request for inference; as :meth:`Predictor.answer`, but with tensors, for a handler that asks for them.

    The body of all other models is the handler's to understand, and so is one which is neither JSON nor has
    binary tensors.

    :raise BadRequest: naming the field that is wrong.
    """
    if request.method == b"OPTIONS":
        return predictor.answer(request, model, version, told)
    # Before anything is made of the tensors.
    found = predictor.plane.find(model, version)
    is_json = _is_json(request)
    if asks_for_tensors(found.config, predictor.envelope):
        length = _json_length(request)
        if length is not None or is_json:
            return Deferred.fromCoroutine(_infer(predictor, request, model, version, told, length))
    parts = [Part("body", _JSON, body_of(request))] if is_json else None
    response = Response(request)
    asked = predictor.submit(request, model, version, told, parts, response)
    return asked.addCallbacks(lambda item: response.finish(_with_error(item, response)), response.fail)


def asks_for_tensors(config: ModelConfig, envelope: str | None) -> bool:
    """
    Return whether a handler wants tensors that are checked, and as JSON where they were binary.

    ``openInference`` in its ``model-config.yaml`` says so, or else the envelope ``kservev2`` around it.
    """
    if config.open_inference is not None:
        return config.open_inference
    return envelope is not None and envelope.partition(":")[0].rpartition(".")[2] == "kservev2"


def _is_json(request: ServeRequest) -> bool:
    """Return whether a body is JSON alone: its content type says so, or there is none and an object begins."""
    kind = media_type(content_type_of(request)).lower()
    if kind or request.requestHeaders.hasHeader(_LENGTH):
        return kind == _JSON
    return body_of(request)[:_LONGEST_BLANK].lstrip().startswith(b"{")


async def _infer(
    predictor: Predictor,
    request: ServeRequest,
    model: str,
    version: str | None,
    told: Mapping[str, str],
    length: str | None,
) -> Body:
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
    return response.finish(_with_error(item, response))


def _with_error(item: Item, response: Response) -> Item:
    """Give an error object that a worker has made the protocol's ``error``, as `answer_error` gives it to others."""
    if item.status < 400 or response.streaming or len(item.body) > MOST_AT_ONCE:
        return item
    try:
        members = json.loads(item.body)
    except (ValueError, RecursionError):
        return item
    if not isinstance(members, dict) or not {"code", "type", "message"} <= members.keys() or "error" in members:
        return item
    return replace(item, body=json_text({**members, "error": members["message"]}))


def _json_length(request: ServeRequest) -> str | None:
    """
    Return how long a request says its JSON is, ``None`` if it does not.

    :raise BadRequest: if it says so more than once.
    """
    said = request.requestHeaders.getRawHeaders(_LENGTH)
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
