# SPDX-License-Identifier: Apache-2.0
"""Authorizers for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted_serve.interfaces import AccessRequest, IAuthorizer, Principal, Refusal

ALICE = Principal("alice")
UNKNOWN = Refusal(401, 'Basic realm="models"')


@implementer(IAuthorizer)
class Saying:
    """
    An authorizer that answers what it is told to.

    :ivar asked: The questions so far.
    """

    def __init__(self, answer: Callable[[AccessRequest], Any] = lambda _asked: ALICE) -> None:
        self.answer = answer
        self.asked: list[AccessRequest] = []

    def authorize(self, asked: AccessRequest) -> Any:
        """Record the question, and answer it."""
        self.asked.append(asked)
        return self.answer(asked)
