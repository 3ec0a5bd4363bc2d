# SPDX-License-Identifier: Apache-2.0
"""
Make the sites whose resources applications mount in sites of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.application.service import Service

from twisted_serve.interfaces import IServeReactor
from twisted_serve.web.http.ports import Listener
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.listeners import HttpApi
from twisted_serve.web.roles import Role


class Mounts(Service):
    """
    The sites for mounted resources, each made when it is first used.

    They are not those of the listeners: a client of another site may come from anywhere.

    :param listeners: Which roles share a resource.
    """

    def __init__(self, reactor: IServeReactor, api: HttpApi, listeners: Sequence[Listener]) -> None:
        self.setName("mounts")
        self._reactor = reactor
        self._api = api
        self._listeners = listeners
        self._sites: dict[Role, ServeSite] = {}

    def site_of(self, role: Role) -> ServeSite | None:
        """Return the site for a role; ``None`` if the server does not have the role, or does not run."""
        for listener in self._listeners if self.running else ():
            if listener.roles & role:
                if listener.roles not in self._sites:
                    self._sites[listener.roles] = self._api.site(listener.roles, self._reactor)
                return self._sites[listener.roles]
        return None
