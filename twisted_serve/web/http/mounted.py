# SPDX-License-Identifier: Apache-2.0
"""
Serve the requests of a site that is not ours, whose channel and request are Twisted's own.

What depends on the head and the body is done here as in ``channel``: authorization, the limit of the body, content
codings, ids, common headers.  What depends on the connection is the other site's: the limits of a head, timeouts, and
that a refused request's body is read before the refusal.
"""

from __future__ import annotations

from io import SEEK_END, BytesIO
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from zope.interface import implementer

from twisted_serve.errors import ServeError
from twisted_serve.web.http.contracts import ChannelSite
from twisted_serve.web.http.heads import NO_CACHE
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.request import RARE, ServeRequest

# The other site's channel decides on these.
_OF_CONNECTION = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"date", b"server"})

_CONTENT_ENCODING = b"content-encoding"


def path_below(request: Request) -> bytes:
    """
    Return the part of a request's path, as it was sent, that is below the resource which renders the request.

    A path that other resources have changed is ``postpath``, quoted.
    """
    raw = request.uri.partition(b"?")[0].split(b"/")
    left = request.postpath or []
    rest = raw[len(raw) - len(left) :] if left else []
    if [unquote_to_bytes(segment) for segment in rest] != left:
        rest = [quote_from_bytes(segment, safe="").encode("ascii") for segment in left]
    return b"/" + b"/".join(rest)


@implementer(IPushProducer)
class _Flow:
    """
    The producer of a stream, as the other site sees it.

    :ivar paused: Whether the client must read before more can be sent.
    """

    def __init__(self, producer: IPushProducer) -> None:
        self._producer = producer
        self.paused = False

    def pauseProducing(self) -> None:
        """Pause."""
        self.paused = True
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume."""
        self.paused = False
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """Stop."""
        self._producer.stopProducing()


class MountedChannel:
    """
    The channel of one request of another site: passes on to that request what is written.

    :ivar transport: Itself.
    :ivar persistent: Ignored: the other site decides whether the connection stays open.
    """

    def __init__(self, outer: Request, site: ChannelSite) -> None:
        self.outer = outer
        self.site = self.factory = site
        self.limits: Limits = site.limits
        self.transport = self
        self.persistent = 1
        self._flow: _Flow | None = None

    @property
    def stalled(self) -> bool:
        """Whether the client must read before more can be sent."""
        return self._flow is not None and self._flow.paused

    def getHost(self) -> IAddress:
        """Return the local address."""
        address: IAddress = self.outer.getHost()
        return address

    def getPeer(self) -> IAddress:
        """Return the address of the client."""
        address: IAddress = self.outer.getClientAddress()
        return address

    def isSecure(self) -> bool:
        """Return whether the request came over TLS."""
        return bool(self.outer.isSecure())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause the producer while the client does not read."""
        self._flow = _Flow(producer)
        self.outer.registerProducer(self._flow, streaming)

    def unregisterProducer(self) -> None:
        """Stop pausing the producer."""
        self._flow = None
        self.outer.unregisterProducer()

    def answer_early(self, error: ServeError) -> None:
        """
        Fail: the body has arrived before the request is rendered.

        :raise RuntimeError: always.
        """
        raise RuntimeError("a mounted request has no early response") from error

    def write_whole(self, answer_id: str, lines: bytes, body: bytes) -> None:
        """
        Fail: the lines of a head are the other site's to write.

        :raise RuntimeError: always.
        """
        raise RuntimeError("a mounted request has no prepared head")

    def send_head(self) -> None:
        """Do nothing: the head goes with the first part of the response."""

    def requestDone(self, request: ServeRequest) -> None:
        """Finish the response."""
        if request.sender is not None:
            request.sender.leave()
        self.outer.finish()

    def abortConnection(self) -> None:
        """Abort the connection, so that the client notices that the response is incomplete."""
        if self.outer.channel is not None:
            transport = getattr(self.outer.channel, "transport", None)
            abort = getattr(self.outer.channel, "abortConnection", None) or getattr(transport, "abortConnection", None)
            (abort or self.outer.channel.loseConnection)()

    loseConnection = abortConnection


class MountedRequest(ServeRequest):
    """A request of another site, rendered by the resource of one of ours."""

    channel: MountedChannel

    def __init__(self, outer: Request, site: ChannelSite) -> None:
        super().__init__(MountedChannel(outer, site), False)
        self._outer = outer
        _path, mark, query = outer.uri.partition(b"?")
        self.method, self.uri, self.clientproto = outer.method, path_below(outer) + mark + query, outer.clientproto
        self.requestHeaders = Headers(dict(outer.requestHeaders.getAllRawHeaders()))
        self.spelled_headers = [
            (name, value) for name, values in self.requestHeaders.getAllRawHeaders() for value in values
        ]
        self.plain = not any(name.lower() in RARE for name, _value in self.spelled_headers)
        self.content = BytesIO()

    @property
    def is_usual(self) -> bool:
        """``False``: the other site writes the head."""
        return False

    def begin(self) -> None:
        """Set the ids of the request and the headers of every response."""
        super().begin()
        for name, value in NO_CACHE:
            self.responseHeaders.setRawHeaders(name, [value])
        self.responseHeaders.setRawHeaders(b"X-Request-Id", [self.answer_id.encode("ascii")])

    def write(self, data: bytes) -> None:
        """Pass on a part of the response; the first part, even if empty, is preceded by the head."""
        if self.finished or self._disconnected:
            return
        if not self.startedWriting:
            self.startedWriting = 1
            self._pass_on_head()
        self._outer.write(data)

    def _pass_on_head(self) -> None:
        outer = self._outer
        outer.setResponseCode(self.code, self.code_message)
        outer.defaultContentType = self.defaultContentType
        for name, values in self.responseHeaders.getAllRawHeaders():
            lowered = name.lower()
            if lowered == _CONTENT_ENCODING:
                # That of the handler, and then that of the other site, which encodes what the handler has encoded.
                values = [*values, *outer.responseHeaders.getRawHeaders(lowered, ())]  # noqa: PLW2901
            if lowered not in _OF_CONNECTION:
                outer.responseHeaders.setRawHeaders(name, values)

    def serve(self) -> None:
        """Render the request, or refuse it."""
        self._outer.notifyFinish().addErrback(self._lost)
        asking = self.channel.site.asking
        if asking is None:
            self._serve()
        else:
            self.ask(asking, self._serve)

    def _serve(self) -> None:
        body = self._outer.content
        length = 0 if body is None else body.seek(0, SEEK_END)
        problem = self.problem_before_body(length)
        if problem is not None:
            self.begin()
            self.write(problem(self))
            self.finish()
            return
        if body is not None:
            # The other site may have a large body in a file; now it is known to be small enough for memory.
            body.seek(0)
            self.content = BytesIO(body.read())
        self.process()

    def _lost(self, reason: Failure) -> None:
        if not self.finished:
            self.connectionLost(reason)
