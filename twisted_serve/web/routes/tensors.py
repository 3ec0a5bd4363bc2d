# SPDX-License-Identifier: Apache-2.0
"""
Parse the tensors of inference requests, and render the outputs of handlers.

A handler, or the envelope around it, gets JSON, whichever encoding the client uses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import BadRequest
from twisted_serve.openinference.answers import InferAnswer, write_answer
from twisted_serve.openinference.pieces import MOST_AT_ONCE
from twisted_serve.openinference.requests import LENGTH_HEADER, read_request
from twisted_serve.planes.inputs import media_type
from twisted_serve.web.http.rendering import json_text
from twisted_serve.web.http.request import ServeRequest, body_of
from twisted_serve.web.http.responses import Body
from twisted_serve.web.routes.predictions import Predictor, Response, content_type_of
from twisted_serve.wire.messages import Item, Part

_JSON = "application/json"
_LENGTH = LENGTH_HEADER.encode("ascii")

# In bytes. Only this much of a body is searched for the beginning of an object.
_LONGEST_BLANK = 64


def infer(
    predictor: Predictor, request: ServeRequest, model: str, version: str | None, told: Mapping[str, str]
) -> Deferred[Body]:
    """
    Respond to an inference request; as :meth:`Predictor.answer`, but with tensors, for a handler that asks for them.

    Other handlers get the body unparsed, and so does every handler if the body is neither JSON nor has binary tensors.

    :raise BadRequest: naming the invalid field.
    """
    if request.method == b"OPTIONS":
        return predictor.answer(request, model, version, told)
    # Checked before the tensors are parsed.
    found = predictor.plane.seen_by(request.sender).find(model, version)
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
    Return whether a handler gets validated tensors, as JSON even if the client sends binary ones.

    ``openInference`` in its ``model-config.yaml`` decides; if that is absent, the envelope ``kservev2`` around it.
    """
    if config.open_inference is not None:
        return config.open_inference
    return envelope is not None and envelope.partition(":")[0].rpartition(".")[2] == "kservev2"


def _is_json(request: ServeRequest) -> bool:
    """Return whether a body is JSON alone, by its content type or, without one, because it begins with an object."""
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
    # Error responses are the handler's, and the last chunk of a stream is no complete response.
    if item.status < 300 and not response.streaming and read.wanted.any():
        if len(item.body) > MOST_AT_ONCE:
            answer = await predictor.defer_to_thread(write_answer, item.body, read.wanted)
        else:
            answer = write_answer(item.body, read.wanted)
        item = _in_binary(item, answer)
    return response.finish(_with_error(item, response))


def _with_error(item: Item, response: Response) -> Item:
    """Add the protocol's ``error`` to an error object from a worker, as `answer_error` does for other errors."""
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
    Return the length of the JSON as the request states it; ``None`` without the header.

    :raise BadRequest: for a repeated header.
    """
    said = request.requestHeaders.getRawHeaders(_LENGTH)
    if said is None:
        return None
    if len(said) > 1:
        raise BadRequest(f"{LENGTH_HEADER} is there {len(said)} times.")
    return str(said[0].decode("latin-1"))


def _in_binary(item: Item, answer: InferAnswer) -> Item:
    """Return a handler's response with the encoding that the client asked for."""
    if answer.json_size is None:
        return item
    headers = {name: value for name, value in item.headers.items() if name.lower() != "content-type"}
    headers |= {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(answer.json_size)}
    return replace(item, body=answer.body, headers=headers)
