# SPDX-License-Identifier: Apache-2.0
"""
Run a whole server in memory behind the site of an application, below which it is mounted.

All requests go through the application's site, with Twisted's own channel and request; everything else is as with
`MemoryServer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from twisted.web.http import HTTPFactory
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_serve.listening.roles import Role
from twisted_serve.service import ModelServer
from twisted_serve.testing.server import MemoryServer

__all__ = ["MountedServer"]


class MountedServer(MemoryServer):
    """
    A running server, mounted in a site of `twisted.web`.

    Override `make_site` and `paths` to test it as your application mounts it.

    :cvar paths: Where the site has each role: a path without a slash at its end.
    """

    paths: ClassVar[Mapping[Role, str]] = {
        Role.INFERENCE: "/ml/inference",
        Role.MANAGEMENT: "/ml/management",
        Role.METRICS: "/ml/metrics",
    }

    def make_site(self, server: ModelServer) -> Site:
        """
        Return the site of the application; called at each start, also by `restart` and `crash`.

        Give the site ``reactor=self.clock``, so that its timeouts are in virtual time, too.
        """
        root = Resource()
        for role, path in self.paths.items():
            *above, last = path.strip("/").encode("ascii").split(b"/")
            parent = root
            for segment in above:
                if segment not in parent.children:
                    parent.putChild(segment, Resource())
                parent = parent.children[segment]
            parent.putChild(last, server.resource(role))
        return Site(root, reactor=self.clock)

    def site_of(self, role: Role) -> HTTPFactory:
        """Return the application's site."""
        return self._site

    def path_of(self, path: str, role: Role) -> str:
        """
        Return the path below that of the role.

        :raise LookupError: for a role that is not mounted.
        """
        if role not in self.paths:
            raise LookupError(f"the site has no path for {role.name}: {path} belongs there, unless the role is named")
        return f"{self.paths[role]}{path}"

    def _start(self) -> None:
        super()._start()
        self._site = self.make_site(self.server)
