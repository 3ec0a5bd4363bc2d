# SPDX-License-Identifier: Apache-2.0
"""
Make the sites whose resources applications mount in sites of their own.
"""

from __future__ import annotations

from twisted.application.service import Service

from twisted_serve.interfaces import IServeReactor
from twisted_serve.listening.roles import Role
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.listeners import HttpApi


class Mounts(Service):
    """
    The sites for mounted resources, each made when it is first used.

    They are not those of the listeners: a client of another site may come from anywhere.
    """

    def __init__(self, reactor: IServeReactor, api: HttpApi) -> None:
        self.setName("mounts")
        self._reactor = reactor
        self._api = api
        self._sites: dict[Role, ServeSite] = {}

    def site_of(self, role: Role) -> ServeSite | None:
        """Return the site for a role, or for several; ``None`` while the server accepts no requests."""
        if not self.running:
            return None
        if role not in self._sites:
            self._sites[role] = self._api.site(role, self._reactor)
        return self._sites[role]
