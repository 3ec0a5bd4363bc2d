# SPDX-License-Identifier: Apache-2.0
"""
Serve ``/metrics`` (``docs/torchserve/rest_api.md`` §10).
"""

from __future__ import annotations

from urllib.parse import parse_qs

from twisted_serve.auth.gate import Denied, bearer_token
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.metrics_token import MetricsToken
from twisted_serve.auth.named.secrets import PREFIX
from twisted_serve.auth.needs import Need
from twisted_serve.auth.scopes import Operation
from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import Unauthorized
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.metrics.registry import CONTENT_TYPE, ServerMetrics
from twisted_serve.planes.access import TokenAccess
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, set_common_headers
from twisted_serve.web.routing.binding import Endpoints

# In bytes. Larger responses are rendered in a thread: a thousand models have seven million bytes, which take a second.
MOST_AT_ONCE = 1 << 16


_PREFIX = PREFIX.encode("ascii")
_SCRAPE = Need(Operation.SCRAPE_METRICS, TokenKind.MANAGEMENT)


class ScrapingKeys:
    """The named keys that open metrics like the token in ``metrics_token_file``; none of the three keys does."""

    def __init__(self, access: TokenAccess) -> None:
        self._access = access
        self._authorizer = access.authorizer(lambda _method, _target: _SCRAPE)

    def take(self, request: ServeRequest) -> bool | Denied:
        """Take a request with a named key; else return why the key does not open this, or ``False`` without one."""
        authorization = request.requestHeaders.getRawHeaders(b"authorization", ())
        presented = bearer_token(authorization)
        if self._access.named is None or isinstance(presented, Reason) or not presented.startswith(_PREFIX):
            return False
        verdict = self._authorizer.ask(request.method, parse_target(request.uri), authorization)
        if isinstance(verdict, Denied):
            return verdict
        # One of the three keys may begin like a named one.
        return verdict.key is not None and (request.admit(verdict) or True)


def metrics_endpoints(
    metrics: ServerMetrics, token: MetricsToken | None, keys: ScrapingKeys | None, defer_to_thread: DeferToThread
) -> Endpoints:
    """
    Return the endpoint of ``/metrics``, whose parameter ``name[]`` selects metrics.

    :param token: The token that the route requires; ``None`` for none.
    :param keys: What else opens it then.
    :param defer_to_thread: Used to render large responses.
    """

    async def render_metrics(request: ServeRequest, rest: str = "") -> Body:
        authorization = request.requestHeaders.getRawHeaders(b"authorization", ())
        if token is not None and not token.admits(authorization):
            taken = keys is not None and keys.take(request)
            if isinstance(taken, Denied):
                return request.channel.site.refuse(request, taken)
            if not taken:
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
