# SPDX-License-Identifier: Apache-2.0
"""
Serve ``/metrics`` (``docs/torchserve/rest_api.md`` §10).
"""

from __future__ import annotations

from urllib.parse import parse_qs

from twisted.web.iweb import IRequest

from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.targets import parse_target
from twisted_serve.errors import Unauthorized
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.metrics.registry import CONTENT_TYPE, ServerMetrics
from twisted_serve.web.http.responses import Body, set_common_headers
from twisted_serve.web.routing.binding import Endpoints

# In bytes. Larger responses are rendered in a thread: a thousand models have seven million bytes, which take a second.
MOST_AT_ONCE = 1 << 16


def metrics_endpoints(metrics: ServerMetrics, token: MetricsToken | None, defer_to_thread: DeferToThread) -> Endpoints:
    """
    Return the endpoint of ``/metrics``, whose parameter ``name[]`` selects metrics.

    :param token: The token that the route requires; ``None`` for none.
    :param defer_to_thread: Used to render large responses.
    """

    async def render_metrics(request: IRequest, rest: str = "") -> Body:
        if token is not None and not token.admits(request.requestHeaders.getRawHeaders(b"authorization", ())):
            request.responseHeaders.setRawHeaders(b"WWW-Authenticate", [b"Bearer"])
            raise Unauthorized("This needs the metrics token, as Authorization: Bearer.")
        names = parse_qs(parse_target(request.uri).query.decode("utf-8", "replace")).get("name[]", ())
        if metrics.read() > MOST_AT_ONCE:
            body = await defer_to_thread(metrics.render_in_thread, names)
        else:
            body = metrics.render_in_thread(names)
        set_common_headers(request, 200)
        request.responseHeaders.setRawHeaders(b"Content-Type", [CONTENT_TYPE.encode("ascii")])
        request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        return body

    return {"metrics": render_metrics}
