# SPDX-License-Identifier: Apache-2.0
"""
This module implements what stands behind each listener: its routes, the guard around them, and its site.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from twisted_serve.auth.gate import Doors, Gate, OpenGate, Stop
from twisted_serve.auth.guard import Guard
from twisted_serve.auth.journal import Journal
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.redaction import Redact, redacting
from twisted_serve.auth.tokens import SHORTEST_SECRET, TokenKind
from twisted_serve.interfaces import Now
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.rotation import Rotation
from twisted_serve.web.answers import Answer, answer_flaw, answer_refusal, new_app
from twisted_serve.web.channel import Limits
from twisted_serve.web.description import describe_api
from twisted_serve.web.doors import Role, doors_of
from twisted_serve.web.inference import add_ping_route, add_prediction_routes
from twisted_serve.web.management import add_management_routes, add_token_route
from twisted_serve.web.metrics import add_metrics_routes
from twisted_serve.web.public import add_description_routes, add_probe_routes, add_root_route
from twisted_serve.web.site import ServeSite, peer_of


@frozen
class Tokens:
    """
    What the listeners need to know of tokens.

    :ivar refusal_status: 400 or 401 (``token_refusal_status``).
    """

    keyring: Keyring
    rotation: Rotation
    journal: Journal
    refusal_status: int
    now: Now
    redact: Redact = field(init=False)

    @redact.default
    def _redacting_the_keyrings(self) -> Redact:
        return redacting(self.keyring.secrets, SHORTEST_SECRET)

    def gate(self, doors: Doors) -> Gate:
        """Make the gate of a listener."""
        return Gate(doors, self.keyring, self.now)

    def refuse(self, request: IRequest, stop: Stop) -> Answer:
        """Answer a request which was stopped, and record it."""
        path = self.redact(request.uri.partition(b"?")[0])
        self.journal.refused(stop, peer_of(request), request.method.decode("latin-1"), path.decode("latin-1"))
        return answer_refusal(request, stop, self.refusal_status)


@frozen
class NoTokens:
    """The same when token authorization is switched off: nobody is stopped."""

    def redact(self, target: bytes) -> bytes:
        """Leave a target as it is: there are no keys."""
        return target

    def gate(self, doors: Doors) -> OpenGate:
        """Make the gate of a listener."""
        return OpenGate(doors)

    def refuse(self, request: IRequest, stop: Stop) -> Answer:
        """Answer a request which was stopped, although none is."""
        return answer_refusal(request, stop, 400)


@frozen
class Faces:
    """
    What the listeners show, put together once for all of them.

    :ivar serve_metrics: Whether there is a ``/metrics`` (``enable_metrics_api``).
    :ivar extra_headers: On every answer, unless a handler sets them itself.
    """

    inference: InferencePlane
    management: ManagementPlane
    metrics: ServerMetrics
    tokens: Tokens | NoTokens
    version: str
    limits: Limits = field(factory=Limits)
    exempt_ping: bool = False
    serve_metrics: bool = True
    extra_headers: Mapping[bytes, bytes] = field(factory=dict)

    def site(self, roles: Role, reactor: IReactorTime) -> ServeSite:
        """Make the site of a listener with these roles."""
        doors = doors_of(roles, self.exempt_ping)
        gate, refuse = self.tokens.gate(doors), self.tokens.refuse
        guard = Guard(self._unguarded_trees(roles), gate, refuse, answer_flaw)
        return ServeSite(
            guard,
            reactor,
            gate,
            refuse,
            self.limits,
            self.metrics.answered,
            self.extra_headers,
            self.tokens.redact,
        )

    def _unguarded_trees(self, roles: Role) -> dict[TokenKind | None, IResource]:
        """Make what each kind of token can reach; ``None`` is for what is public (:func:`doors.is_open`)."""
        public, inference, management, api = new_app(), new_app(), new_app(), new_app()
        add_probe_routes(public, self.inference.ready)
        both = Role.INFERENCE | Role.MANAGEMENT
        guarded_metrics = self.serve_metrics and roles & both == both and not roles & Role.METRICS
        tokens = isinstance(self.tokens, Tokens)
        description = describe_api(roles, self.version, tokens, guarded_metrics, self.exempt_ping)
        add_description_routes(public, description)
        if roles & Role.METRICS:
            add_metrics_routes(public, self.metrics)
        if roles & Role.INFERENCE:
            if self.exempt_ping:
                add_ping_route(public, self.inference)
            add_ping_route(inference, self.inference)
            add_prediction_routes(inference, self.inference, pass_credentials=isinstance(self.tokens, NoTokens))
        if roles & Role.MANAGEMENT:
            add_management_routes(management, self.management)
            if guarded_metrics:
                add_metrics_routes(management, self.metrics)
            if isinstance(self.tokens, Tokens):
                add_token_route(api, self.tokens.rotation)
        add_root_route(inference)
        add_root_route(management)
        return {
            None: public.resource(),
            TokenKind.INFERENCE: inference.resource(),
            TokenKind.MANAGEMENT: management.resource(),
            TokenKind.API: api.resource(),
        }
