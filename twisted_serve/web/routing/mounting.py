# SPDX-License-Identifier: Apache-2.0
"""
Offer the API of a listener as a resource of any other site.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.server import NOT_DONE_YET, Request

from twisted_serve.errors import ServerNotRunning
from twisted_serve.web.http.mounted import MountedRequest
from twisted_serve.web.http.rendering import json_text, members_of
from twisted_serve.web.http.site import ServeSite
from twisted_serve.web.routing.leaf import Leaf


class Mounted(Leaf):
    """
    Serves the paths below it as a site of ours serves its paths.

    :param site: Return the site; ``None`` while the server does not run.
    """

    def __init__(self, site: Callable[[], ServeSite | None]) -> None:
        self._site = site

    def render(self, request: Request) -> bytes | int:
        """Respond to the request; with 503 while the server does not run."""
        site = self._site()
        if site is not None:
            MountedRequest(request, site).serve()
            return NOT_DONE_YET
        error = ServerNotRunning()
        request.setResponseCode(error.status)
        request.responseHeaders.setRawHeaders(b"Content-Type", [b"application/json"])
        return json_text(members_of(error))
