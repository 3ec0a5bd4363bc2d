# SPDX-License-Identifier: Apache-2.0
"""
Define what a request needs: the question to the gate, and to an application's authorizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from twisted_serve.auth.scopes import Operation, Scope
from twisted_serve.auth.targets import Target


@frozen
class Need:
    """
    What a request needs.

    :ivar operation: ``None`` for a request without a route, and for the endpoint of a plug-in.
    :ivar scope: ``None`` for a public target, about which no authorizer is asked.
    :ivar model: The model or workflow that the path names, if it names one.
    """

    operation: Operation | None
    scope: Scope | None
    model: str | None = None


#: Maps a method and a target to what a request needs.
NeedPolicy: TypeAlias = Callable[[bytes, Target], Need]
