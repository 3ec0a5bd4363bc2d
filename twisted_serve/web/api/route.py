# SPDX-License-Identifier: Apache-2.0
"""
Define a route of the API, and what several routes have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from twisted_serve.auth.scopes import Operation, Scope, required
from twisted_serve.listening.roles import Role
from twisted_serve.web.api.template import REST, Piece, parse_template

_TRACED = frozenset({Operation.PREDICT, Operation.EXPLAIN, Operation.PREDICT_WORKFLOW})

# Parameters have shorter names in traces: "{model}", "{version}", "{workflow}", "{path}".
_TRACE_PARAMETER = re.compile(r"\{(?:(?:model|url)_(?=version|path))?(\w+?)(?:_name)?\}")

# The parameters of paths that name models and workflows.
_NAMES = ("model_name", "workflow_name")


@frozen
class Parameter:
    """
    A parameter outside the path.

    :ivar kind: ``string``, ``integer`` or ``boolean``.
    :ivar limits: Further members of its schema: ``default``, ``enum``, ``minimum``, ``maximum``.
    :ivar place: ``query`` or ``header``.
    """

    name: str
    kind: str
    meaning: str
    required: bool = False
    limits: Mapping[str, Any] = field(factory=dict)
    place: str = "query"


@frozen
class Route:
    """
    One route of the API.

    :ivar path: The template of its path.
    :ivar method: The described method in lower case: ``get``, ``post``, ``put``, ``patch``, ``delete`` or ``options``.
    :ivar answers: The meaning of each status code.
    :ivar operation: Decides the key that the route needs.
    :ivar body: The request body: the name of a schema, ``""`` for any, ``None`` for none.
    :ivar result: The response body below 400, as ``body``; or a media type.
    :ivar plain: The codes from 400 up whose responses have ``result``, too.
    :ivar rest: Whether longer paths that begin with its path are this route, too, and the name of Klein's converter:
        ``path`` if the segment that follows may not be empty, else ``rest``. They are not described.
    :ivar unmarked: Whether its last segment has no colon, after which other routes have a verb.
    :ivar any_case: Whether its first segment may be spelled in upper case; only the described spelling is claimed.
    :ivar exact_method: Whether other methods of its path are unknown paths.
    :ivar any_method: Whether it takes other methods than the described one, too.
    :ivar head: Whether HEAD is allowed where GET is.
    :ivar fast: Whether it is found without Klein; so are all routes with the same first segment then.
    :ivar described: Whether the API description has it.
    :ivar bound: Whether an endpoint is bound to it; otherwise another route of its path answers its method, too.
    :ivar pieces: The parsed template.
    """

    path: str
    method: str
    operation_id: str
    summary: str
    answers: Mapping[int, str]
    operation: Operation
    parameters: tuple[Parameter, ...] = ()
    body: str | None = None
    result: str = "Status"
    plain: tuple[int, ...] = ()
    rest: str = ""
    unmarked: bool = False
    any_case: bool = False
    exact_method: bool = False
    any_method: bool = False
    head: bool = True
    fast: bool = False
    described: bool = True
    bound: bool = True
    pieces: tuple[Piece, ...] = field(init=False, repr=False)

    @pieces.default
    def _parsed_path(self) -> tuple[Piece, ...]:
        return parse_template(self.path)

    @property
    def scope(self) -> Scope | None:
        """The scope that its operation needs; ``None`` for a public one."""
        return required(self.operation)

    @property
    def trace_name(self) -> str | None:
        """The name of the route in traces; ``None`` for a route that is not traced since it predicts nothing."""
        return _TRACE_PARAMETER.sub(r"{\1}", self.path) if self.operation in _TRACED else None

    @property
    def first(self) -> str | None:
        """The literal first segment of its path; ``None`` for the root, and where a parameter comes first."""
        return self.pieces[0].text if self.pieces and self.pieces[0].parameter is None else None

    def takes(self, method: str) -> bool:
        """Return whether it answers requests with a method."""
        if method == self.method.upper():
            return True
        if self.exact_method:
            return False
        return self.any_method or (method == "HEAD" and self.method == "get" and self.head)

    def name_in(self, segments: Sequence[str]) -> str | None:
        """Return the model or workflow that a matching path names; ``None`` if it names none."""
        for piece, segment in zip(self.pieces, segments, strict=False):
            if piece.parameter in _NAMES:
                return segment.removesuffix(piece.text)
        return None

    def matches(self, segments: Sequence[str]) -> bool:
        """Return whether a path is this route's; literal segments are compared whole."""
        pieces = self.pieces
        longer = bool(self.rest) or (pieces != () and pieces[-1].parameter == REST)
        if len(segments) < len(pieces) or (len(segments) > len(pieces) and not longer):
            return False
        if self.unmarked and ":" in segments[-1]:
            return False
        if self.any_case:
            segments = (segments[0].lower(), *segments[1:])
        return all(piece.matches(segment) for piece, segment in zip(pieces, segments, strict=False))


@frozen
class Surface:
    """
    The settings that decide which routes a listener has.

    :ivar tokens: Whether token authorization is on.
    :ivar guarded_metrics: Whether it serves metrics to clients with the management key.
    :ivar exempt_ping: Whether ``/ping`` needs no key.
    :ivar open_inference: Whether it has the extras of the Open Inference Protocol.
    """

    roles: Role
    tokens: bool
    guarded_metrics: bool = False
    exempt_ping: bool = False
    open_inference: bool = False


REFUSED = {400: "The token is missing, wrong or expired, or the request cannot be understood."}
KNOWN = {**REFUSED, 404: "No such model or version."}

DESCRIPTION = {200: "The description."}
SWITCHED_OFF = {405: "The model API is switched off."}

#: Of every list.
PAGING = (
    Parameter("limit", "integer", "Entries on a page.", limits={"default": 100, "minimum": 1, "maximum": 100}),
    Parameter("next_page_token", "integer", "Where to go on: what the last page said.", limits={"default": 0}),
)
