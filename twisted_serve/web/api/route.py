# SPDX-License-Identifier: Apache-2.0
"""
This module implements an operation, as it is described, and what several of them have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from twisted_serve.web.roles import Role


@frozen
class Parameter:
    """
    A parameter which is not in the path.

    :ivar kind: ``string``, ``integer`` or ``boolean``.
    :ivar limits: What else its schema says: ``default``, ``enum``, ``minimum``, ``maximum``.
    :ivar place: ``query`` or ``header``.
    """

    name: str
    kind: str
    meaning: str
    required: bool = False
    limits: Mapping[str, Any] = field(factory=dict)
    place: str = "query"


@frozen
class Operation:
    """
    One route, as it is described.

    :ivar method: ``get``, ``post``, ``put``, ``delete`` or ``options``.
    :ivar answers: What each status code means.
    :ivar key: Which security scheme it needs; ``None`` for an open one.
    :ivar body: What it takes: a schema's name, ``""`` for anything, ``None`` for nothing.
    :ivar result: What it answers below 400, as ``body``; or a media type.
    :ivar plain: The codes from 400 up which are answered with ``result``, too.
    """

    path: str
    method: str
    operation_id: str
    summary: str
    answers: Mapping[int, str]
    key: str | None = None
    parameters: tuple[Parameter, ...] = ()
    body: str | None = None
    result: str = "Status"
    plain: tuple[int, ...] = ()


@frozen
class Surface:
    """
    What a listener shows.

    :ivar tokens: Whether token authorization is on.
    :ivar guarded_metrics: Whether it serves metrics to who has the management key.
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
