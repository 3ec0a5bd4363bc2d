# SPDX-License-Identifier: Apache-2.0
"""
Handle the management routes ``/models`` and ``/token`` (``docs/torchserve/rest_api.md`` §8 and §16.6).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from twisted_serve.auth.key_file import describe_token
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.metadata import CustomDescription, Metadata
from twisted_serve.planes.registrar import Registration
from twisted_serve.planes.rotation import Rotation
from twisted_serve.web.http.queries import LEAST_INTEGER, as_boolean, as_integer, page_wanted, query_parameters
from twisted_serve.web.http.rendering import json_text
from twisted_serve.web.http.request import ServeRequest, job_id
from twisted_serve.web.http.responses import Body, answer_json
from twisted_serve.web.http.site import sender_of
from twisted_serve.web.openapi.document import describe_model_management
from twisted_serve.web.routes.changes import given_parameters, shielded, wanted_number
from twisted_serve.web.routes.predictions import set_handler_headers
from twisted_serve.web.routing.binding import Endpoints


def management_endpoints(plane: ManagementPlane, metadata: Metadata, tokens: bool) -> Endpoints:
    """
    Return the endpoints that change and describe models.

    :param tokens: Whether token authorization is on.
    """

    def list_models(request: IRequest) -> Body:
        return answer_json(request, 200, plane.list_models(*page_wanted(request)))

    def register(request: IRequest) -> Deferred[Body]:
        # Checked before the body is parsed: without the model API the same error responds to any body.
        plane.check_enabled()
        return shielded(request, plane.register(_registration_of(request)))

    def describe(request: ServeRequest, model: str, version: str | None = None) -> Deferred[Body]:
        if version != "all" and as_boolean(query_parameters(request).get("customized"), False):
            asked = Deferred.fromCoroutine(metadata.ask(model, version, job_id(request)))
            return asked.addCallback(lambda custom: _answer_custom(request, custom))
        described = Deferred.fromCoroutine(plane.describe(model, version))
        return described.addCallback(lambda versions: answer_json(request, 200, versions))

    def describe_calls(request: IRequest, model: str, version: str | None = None) -> Body:
        plane.find(model, version)
        return answer_json(request, 200, describe_model_management(model, tokens))

    def scale(request: IRequest, model: str, version: str | None = None) -> Deferred[Body]:
        query = query_parameters(request)
        min_worker = as_integer(query.get("min_worker"), 1)
        max_worker = as_integer(query.get("max_worker"), min_worker)
        synchronous = as_boolean(query.get("synchronous"), False)
        version = version or query.get("model_version")
        return shielded(request, plane.scale(model, version, min_worker, max_worker, synchronous))

    def unregister(request: IRequest, model: str, version: str | None = None) -> Deferred[Body]:
        return shielded(request, plane.unregister(model, version))

    def set_default(request: IRequest, model: str, version: str) -> Deferred[Body]:
        return shielded(request, plane.set_default(model, version))

    return {
        "listModels": list_models,
        "registerModel": register,
        "describeModel": describe,
        "version_describeModel": describe,
        "modelDescription": describe_calls,
        "version_modelDescription": describe_calls,
        "setAutoScale": scale,
        "version_setAutoScale": scale,
        "unregisterModel": unregister,
        "version_unregisterModel": unregister,
        "setDefault": set_default,
    }


def token_endpoints(rotation: Rotation) -> Endpoints:
    """Return the endpoint of ``/token``, which replaces a key and returns the new one."""

    async def replace_token(request: IRequest) -> Body:
        kind = query_parameters(request).get("type")
        token = await rotation.replace_named(kind, by=sender_of(request))
        return answer_json(request, 200, {"type": kind, **describe_token(token)})

    return {"replaceToken": replace_token, "replaceTokenByGet": replace_token}


def _answer_custom(request: ServeRequest, described: CustomDescription) -> Body:
    """Respond with a description, and with the status and headers of the handler."""
    body = json_text([described.members])
    request.responseHeaders.setRawHeaders(b"Content-Type", [b"application/json"])
    set_handler_headers(request, described.item)
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    return body


def _registration_of(request: IRequest) -> Registration:
    """
    Parse a registration (``docs/torchserve/rest_api.md`` §8.2).

    :raise BadRequest: as :func:`given_parameters`.
    """
    given = given_parameters(request)
    return Registration(
        url=given.get("url"),
        model_name=given.get("model_name"),
        handler=given.get("handler"),
        runtime=given.get("runtime"),
        settings=RequestedSettings(
            batch_size=wanted_number(given, "batch_size", 1),
            max_batch_delay=wanted_number(given, "max_batch_delay", 0),
            initial_workers=wanted_number(given, "initial_workers", LEAST_INTEGER),
            response_timeout=wanted_number(given, "response_timeout", 0),
            startup_timeout=wanted_number(given, "startup_timeout", 0),
        ),
        synchronous=as_boolean(given.get("synchronous"), True),
    )
