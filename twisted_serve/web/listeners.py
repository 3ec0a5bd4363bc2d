# SPDX-License-Identifier: Apache-2.0
"""
Build the site of each listener: its routes and the guard around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from twisted_serve.auth.asking import Asking, Declined
from twisted_serve.auth.gate import Allowed, Denied
from twisted_serve.auth.guard import Guard
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.endpoints import Context, Endpoint
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.listening.admission import Admission
from twisted_serve.listening.roles import Role
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.planes.access import Access, ApplicationAccess, TokenAccess
from twisted_serve.planes.inference import SharedInference
from twisted_serve.planes.keys import KeysPlane
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.metadata import Metadata
from twisted_serve.planes.workflows import WorkflowPlane
from twisted_serve.web.api.access import application_policy, need_policy
from twisted_serve.web.api.route import Surface
from twisted_serve.web.api.surface import served_routes
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_declined, answer_flaw, answer_refusal
from twisted_serve.web.http.site import ServeSite, peer_of
from twisted_serve.web.routes.fast_lane import Lane
from twisted_serve.web.routes.inference import ping_endpoint, prediction_endpoints
from twisted_serve.web.routes.keys import key_endpoints
from twisted_serve.web.routes.kserve import (
    open_inference_endpoints,
    v1_endpoints,
    v1_model_endpoints,
    v2_endpoints,
    v2_readiness_endpoints,
)
from twisted_serve.web.routes.management import management_endpoints, token_endpoints
from twisted_serve.web.routes.metrics import ScrapingKeys, metrics_endpoints
from twisted_serve.web.routes.plugins import kind_of, ways_to
from twisted_serve.web.routes.predictions import Predictor
from twisted_serve.web.routes.probes import description_endpoints, probe_endpoints
from twisted_serve.web.routes.sagemaker import invocation_endpoints, legacy_endpoints
from twisted_serve.web.routes.workflows import workflow_management_endpoints, workflow_prediction_endpoints
from twisted_serve.web.routing.asking import Asked
from twisted_serve.web.routing.binding import (
    Endpoints,
    FastEndpoints,
    fast_routes,
    held_to_operations,
    require_endpoints,
)
from twisted_serve.web.routing.browsers import answer_way_to_docs, is_browser_at_root
from twisted_serve.web.routing.cors import Preflight
from twisted_serve.web.routing.fast_path import FastPath, FastRoute
from twisted_serve.web.routing.tracing import Tracing

if TYPE_CHECKING:
    from twisted_serve.metrics.tracing import Tracer


@frozen
class Refusals:
    """
    The responses to requests that are not authorized.

    :ivar status: The status of a refusal, 400 or 401 (``token_refusal_status``).
    """

    access: Access
    status: int

    def refuse(self, request: IRequest, denied: Denied) -> Body:
        """Answer a denied request and record it in the audit log; redirect a browser without a key to the open page."""
        if denied.reason is Reason.MISSING and is_browser_at_root(request):
            return answer_way_to_docs(request)
        # Without token authorization no request is denied.
        if isinstance(self.access, TokenAccess):
            self.access.record(denied, peer_of(request), request.method.decode("latin-1"), request.uri)
        return answer_refusal(request, denied, self.status)

    def decline(self, request: IRequest, declined: Declined) -> Body:
        """Answer a request that the application's authorizer has not admitted, and record a refusal."""
        if isinstance(self.access, ApplicationAccess):
            path, method = request.uri.partition(b"?")[0].decode("latin-1"), request.method.decode("latin-1")
            self.access.audit_log.declined(declined, peer_of(request), method, path)
        return answer_declined(request, declined)


def admitted(request: IRequest, allowed: Allowed) -> Denied | None:
    """
    Take a request with a named key, or return why the key has reached a limit.

    :raise TypeError: for a request that cannot be held to its key.
    """
    if not isinstance(request, ServeRequest):
        raise TypeError(f"{type(request).__name__} has a named key, expected ServeRequest")
    return request.admit(allowed)


@frozen
class HttpApi:
    """
    The HTTP API that all listeners share.

    :ivar refusal_status: The status of a refusal, 400 or 401 (``token_refusal_status``).
    :ivar exempt_ping: Whether ``/ping`` needs no token (``token_exempt_ping``).
    :ivar serve_metrics: Whether ``/metrics`` is served (``enable_metrics_api``).
    :ivar open_inference: Whether the extensions of the Open Inference Protocol are served.
    :ivar envelope: The request envelope of every model (``service_envelope``).
    :ivar extra_headers: CORS headers of every response, unless a handler sets them; if there are any, preflight
        requests of browsers are answered.
    :ivar server_timing: Whether responses have a ``Server-Timing`` header.
    :ivar fast_lane: Whether usual predictions take the fast lane.
    :ivar admission: Limits the number of connections of all listeners together.
    :ivar error_detail: Whether responses include the details of handler errors; ``None``: only on listeners that
        only this machine can reach.
    :ivar tracer: Traces predictions; ``None`` if tracing is off.
    :ivar metrics_token: The token for ``/metrics`` where the management token does not protect it.
    :ivar endpoints: The endpoints of plug-ins, with unique names.
    :ivar keys: Manages the named keys; ``None`` without a store of them (``token_store``).
    :ivar look: Return the overview of the server that plug-ins get.
    """

    inference: SharedInference
    management: ManagementPlane
    workflows: WorkflowPlane
    metadata: Metadata
    metrics: ServerMetrics
    access: Access
    defer_to_thread: DeferToThread
    version: str
    limits: Limits = field(factory=Limits)
    refusal_status: int = 400
    exempt_ping: bool = False
    serve_metrics: bool = True
    open_inference: bool = False
    envelope: str | None = None
    extra_headers: Mapping[bytes, bytes] = field(factory=dict)
    server_timing: bool = False
    fast_lane: bool = True
    admission: Admission | None = None
    error_detail: bool | None = None
    metrics_token: MetricsToken | None = None
    tracer: Tracer | None = None
    endpoints: Sequence[Endpoint] = ()
    keys: KeysPlane | None = None
    look: Callable[[], Context] = lambda: Context((), {})

    def site(self, roles: Role, reactor: IReactorTime, local: bool = False) -> ServeSite:
        """
        Return the site of a listener with these roles.

        :param local: Whether only this machine can reach the listener.
        """
        plugged = {one.segment: kind_of(one) for one in self.endpoints}
        policy = need_policy(roles, self.exempt_ping, plugged)
        authorizer, refusals = self.access.authorizer(policy), Refusals(self.access, self.refusal_status)
        tokens, own = isinstance(self.access, TokenAccess), isinstance(self.access, ApplicationAccess)
        predictor = Predictor(self.inference, tokens, self.defer_to_thread, self.envelope, own)
        guarded: IResource = Guard(
            self._unguarded_trees(roles, reactor, predictor), authorizer, refusals.refuse, answer_flaw, admitted
        )
        asking: Asking | None = None
        if isinstance(self.access, ApplicationAccess):
            needs = application_policy(roles, self.exempt_ping, plugged, self.metrics_token is not None)
            asking = self.access.asking(needs, reactor)
            guarded = Asked(guarded, asking)
        site = ServeSite(
            Preflight(guarded) if self.extra_headers else guarded,
            reactor,
            authorizer,
            refusals.refuse,
            self.limits,
            self.metrics.answered,
            self.extra_headers,
            self.access.redact,
            self.defer_to_thread,
            self.server_timing,
            self.admission,
            bool(roles & Role.INFERENCE),
            local if self.error_detail is None else self.error_detail,
            asking,
            refusals.decline,
            self.access.take if isinstance(self.access, TokenAccess) else None,
        )
        # What these add to each request or response, the fast lane does not know.
        unknown = asking or self.tracer or self.server_timing or self.extra_headers
        if self.fast_lane and roles & Role.INFERENCE and not unknown:
            site.fast_lane = Lane(predictor)
        return site

    def _unguarded_trees(
        self, roles: Role, reactor: IReactorTime, predictor: Predictor
    ) -> dict[TokenKind | None, IResource]:
        """Return the resource that each kind of token opens; ``None`` stands for the public one (`web.api.access`)."""
        from twisted_serve.web.routing.klein_app import apps_of  # noqa: PLC0415 - Klein installs a reactor

        both = Role.INFERENCE | Role.MANAGEMENT
        guarded_metrics = self.serve_metrics and roles & both == both and not roles & Role.METRICS
        tokens, own = isinstance(self.access, TokenAccess), isinstance(self.access, ApplicationAccess)
        named = isinstance(self.access, TokenAccess) and self.access.named is not None
        surface = Surface(roles, tokens, guarded_metrics, self.exempt_ping, self.open_inference)
        routes = served_routes(surface)
        fast_endpoints: FastEndpoints = {"ping": ping_endpoint(self.inference)}
        endpoints = {
            **probe_endpoints(self.inference.ready),
            **description_endpoints(surface, self.version),
            **metrics_endpoints(
                self.metrics,
                self.metrics_token if roles & Role.METRICS else None,
                ScrapingKeys(self.access) if isinstance(self.access, TokenAccess) else None,
                self.defer_to_thread,
            ),
            **v1_model_endpoints(self.inference),
        }
        if roles & Role.INFERENCE:
            fast_endpoints = {**fast_endpoints, **prediction_endpoints(predictor)}
            endpoints |= self._inference_endpoints(predictor)
        if roles & Role.MANAGEMENT:
            endpoints |= management_endpoints(self.management, self.metadata, tokens)
            endpoints |= workflow_management_endpoints(self.workflows)
            if isinstance(self.access, TokenAccess):
                endpoints |= {**token_endpoints(self.access.rotation), **key_endpoints(self.keys)}
        if own or named:
            endpoints, fast_endpoints = (
                held_to_operations(endpoints, routes, own),
                held_to_operations(fast_endpoints, routes, own),
            )
        endpoints = {**endpoints, **fast_endpoints}
        require_endpoints(routes, endpoints)
        trees: dict[TokenKind | None, IResource] = {}
        for scope, app in apps_of(surface).items():
            fast = fast_routes([route for route in routes if route.scope is scope], fast_endpoints)
            trees[scope] = FastPath(app.bound_to(endpoints).resource(), {**fast, **self._plugin_routes(scope)})
        if self.tracer is not None:
            trees[TokenKind.INFERENCE] = Tracing(trees[TokenKind.INFERENCE], self.tracer, reactor.seconds)
        return trees

    def _plugin_routes(self, scope: TokenKind | None) -> dict[str, FastRoute]:
        return {} if scope is None else ways_to(self.endpoints, scope, self.look)

    def _inference_endpoints(self, predictor: Predictor) -> Endpoints:
        return {
            **invocation_endpoints(predictor),
            **legacy_endpoints(predictor),
            **v1_endpoints(predictor),
            **v2_endpoints(predictor),
            **v2_readiness_endpoints(self.inference),
            **open_inference_endpoints(predictor, self.version),
            **workflow_prediction_endpoints(self.workflows, predictor),
        }
