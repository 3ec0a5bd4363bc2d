# SPDX-License-Identifier: Apache-2.0
"""
Define the base class of the resources that wrap a tree of routes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twisted.web.resource import IResource
from zope.interface import implementer


@implementer(IResource)
class Leaf(ABC):
    """
    A resource for every path below it, without children.

    What it wraps has the routes; a child beside that would be reachable without what it adds.
    """

    isLeaf = True

    @abstractmethod
    def render(self, request: Any) -> bytes | int:
        """Respond to the request, or pass it on."""

    def getChildWithDefault(self, name: bytes, request: Any) -> IResource:
        """Return this resource for every path."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Refuse children.

        :raise TypeError: always.
        """
        raise TypeError(f"no child {path!r} can be put below {type(self).__name__}")
