# SPDX-License-Identifier: Apache-2.0
"""
This module implements the management routes: ``/models`` and ``/token`` (``spec/rest_api.md`` §8 and §16.6).
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from twisted_serve.auth.key_file import describe_token
from twisted_serve.errors import BadRequest
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.planes.management import ManagementPlane, Outcome, Registration
from twisted_serve.planes.metadata import CustomDescription, Metadata
from twisted_serve.planes.rotation import Rotation
from twisted_serve.web.answers import Answer, answer_json, answer_status, job_id, json_text
from twisted_serve.web.bodies import body_of, media_type
from twisted_serve.web.description import describe_model_management
from twisted_serve.web.jobs import set_handler_headers
from twisted_serve.web.queries import as_boolean, as_integer, query_parameters
from twisted_serve.web.request import ServeRequest
from twisted_serve.web.site import peer_of

_log = Logger()

# A page of the list has at most this many models (``spec/rest_api.md`` §8.1).
LONGEST_PAGE = 100


def add_management_routes(app: Klein, plane: ManagementPlane, metadata: Metadata, tokens: bool) -> None:
    """
    Add what changes and describes models.

    :param tokens: Whether token authorization is on.
    """

    @app.route("/models", methods=["GET"])
    def list_models(request: IRequest) -> Answer:
        query = query_parameters(request)
        limit = as_integer(query.get("limit"), LONGEST_PAGE)
        offset = max(0, as_integer(query.get("next_page_token"), 0))
        return answer_json(
            request, 200, plane.list_models(limit if 0 < limit <= LONGEST_PAGE else LONGEST_PAGE, offset)
        )

    @app.route("/models", methods=["POST"])
    def register(request: IRequest) -> Deferred[Answer]:
        # Before the body is looked at: where models may not come and go it does not matter what it says.
        plane.check_enabled()
        return _shielded(request, plane.register(_registration_of(request)))

    @app.route("/models/<model>", methods=["GET"])
    @app.route("/models/<model>/<version>", methods=["GET"])
    def describe(request: ServeRequest, model: str, version: str | None = None) -> Deferred[Answer]:
        if version != "all" and as_boolean(query_parameters(request).get("customized"), False):
            asked = Deferred.fromCoroutine(metadata.ask(model, version, job_id(request)))
            return asked.addCallback(lambda custom: _answer_custom(request, custom))
        described = Deferred.fromCoroutine(plane.describe(model, version))
        return described.addCallback(lambda versions: answer_json(request, 200, versions))

    @app.route("/models/<model>", methods=["OPTIONS"])
    @app.route("/models/<model>/<version>", methods=["OPTIONS"])
    def describe_calls(request: IRequest, model: str, version: str | None = None) -> Answer:
        plane.find(model, version)
        return answer_json(request, 200, describe_model_management(model, tokens))

    @app.route("/models/<model>", methods=["PUT"])
    @app.route("/models/<model>/<version>", methods=["PUT"])
    def scale(request: IRequest, model: str, version: str | None = None) -> Deferred[Answer]:
        query = query_parameters(request)
        min_worker = as_integer(query.get("min_worker"), 1)
        max_worker = as_integer(query.get("max_worker"), min_worker)
        synchronous = as_boolean(query.get("synchronous"), False)
        version = version or query.get("model_version")
        return _shielded(request, plane.scale(model, version, min_worker, max_worker, synchronous))

    @app.route("/models/<model>", methods=["DELETE"])
    @app.route("/models/<model>/<version>", methods=["DELETE"])
    def unregister(request: IRequest, model: str, version: str | None = None) -> Deferred[Answer]:
        return _shielded(request, plane.unregister(model, version))

    @app.route("/models/<model>/<version>/set-default", methods=["PUT"])
    def set_default(request: IRequest, model: str, version: str) -> Answer:
        return _answer(request, plane.set_default(model, version))


def add_token_route(app: Klein, rotation: Rotation) -> None:
    """Add ``/token``, which replaces a key and answers with the new one."""

    @app.route("/token", methods=["GET", "POST"])
    def replace_token(request: IRequest) -> Answer:
        kind = query_parameters(request).get("type")
        token = rotation.replace_named(kind, by=peer_of(request))
        return answer_json(request, 200, {"type": kind, **describe_token(token)})


def _answer_custom(request: ServeRequest, described: CustomDescription) -> Answer:
    """Answer with a description under the head which the handler has chosen."""
    body = json_text([described.members])
    request.responseHeaders.setRawHeaders(b"Content-Type", [b"application/json"])
    set_handler_headers(request, described.item)
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    return body


def _answer(request: IRequest, outcome: Outcome) -> Answer:
    return answer_status(request, outcome.status, outcome.text)


def _shielded(request: IRequest, change: Coroutine[Deferred[Any], Any, Outcome]) -> Deferred[Answer]:
    """Answer with the outcome of a change, which goes on when the client leaves: half a change is worse than none."""
    outcome: Deferred[Outcome] = Deferred()

    def settle(result: Outcome | Failure) -> None:
        if not outcome.called:
            outcome.callback(result)
        elif isinstance(result, Failure):
            _log.warn("A change whose client had left failed: {error}", error=result.value)

    Deferred.fromCoroutine(change).addBoth(settle)
    return outcome.addCallback(lambda outcome: _answer(request, outcome))


def _registration_of(request: IRequest) -> Registration:
    """
    Read what is to be registered, from a JSON body or else from the query (``spec/rest_api.md`` §8.2).

    :raise BadRequest: for a body that is no JSON object.
    """
    content_type = request.requestHeaders.getRawHeaders(b"content-type", (b"",))[0].decode("latin-1")
    if media_type(content_type).lower() == "application/json":
        given = _json_parameters(body_of(request))
    else:
        given = dict(query_parameters(request))
    if as_boolean(given.get("s3_sse_kms"), False):
        raise BadRequest("Parameter s3_sse_kms: signed downloads are not supported.")
    return Registration(
        url=given.get("url"),
        model_name=given.get("model_name"),
        handler=given.get("handler"),
        runtime=given.get("runtime"),
        settings=RequestedSettings(
            batch_size=_wanted(given, "batch_size", 1),
            max_batch_delay=_wanted(given, "max_batch_delay", 0),
            initial_workers=_wanted(given, "initial_workers", 0),
            response_timeout=_wanted(given, "response_timeout", 0),
            startup_timeout=_wanted(given, "startup_timeout", 0),
        ),
        synchronous=as_boolean(given.get("synchronous"), True),
    )


def _wanted(given: dict[str, str], name: str, least: int) -> int | None:
    """Return a number, or ``None`` when it is absent, no number or too small: all of these leave it open."""
    number = as_integer(given.get(name), least - 1)
    return number if number >= least else None


def _json_parameters(body: bytes) -> dict[str, str]:
    """
    Read a JSON object as parameters: numbers and truth values may be spelled as strings, and strings as they are.

    :raise BadRequest: for anything but a JSON object of plain values.
    """
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
