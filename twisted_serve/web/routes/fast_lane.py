# SPDX-License-Identifier: Apache-2.0
"""
Take usual predictions from the bytes to the queue in one pass, and their answers to the socket in one write.

A usual prediction has a usual head (`usual_heads`), a path ``/predictions/<model>[/<version>]``, a body that has come
with the head and is no form, and a key that is good. Anything else is left to the channel, before it has left a trace.

The rules are those of all requests: the gate decides, `job_headers` selects what a handler sees, `usual_lines` renders
the headers of the answer, `ServeSite` counts and logs. As soon as anything unusual comes of a request (an error, a
stream, a client that sends more or disconnects, the end of the server), it becomes a `ServeRequest`.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.auth.gate import Allowed, Authorizer, Denied, OpenAuthorizer
from twisted_serve.auth.scopes import Operation
from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import ServeError
from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.inputs import is_form, media_type
from twisted_serve.planes.job_headers import PREDICT, job_headers, sender_header
from twisted_serve.planes.request_ids import client_id_of, fresh_id, id_for_worker
from twisted_serve.planes.senders import Sender
from twisted_serve.scheduling.pending import PendingRequest
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.contracts import ChannelSite
from twisted_serve.web.http.request import RARE, ServeRequest
from twisted_serve.web.http.usual_heads import UsualHead, usual_head
from twisted_serve.web.routes.predictions import Predictor, Response, usual_lines
from twisted_serve.web.routing.fast_path import deliver
from twisted_serve.wire.messages import Item, Job, Part

_log = Logger("twisted_serve.web")

# The first segment of the paths.
_PREDICTIONS: Final = "predictions"

# A quick look, before a head is parsed.
_BEGINS: Final = tuple(b"%s /%s/" % (method, _PREDICTIONS.encode()) for method in (b"POST", b"GET", b"PUT"))

_ELSEWHERE: Final = "the connection of this request is in another process"

# How many heads are remembered, and of how many bytes; they differ in keys, clients and models.
_REMEMBERED: Final = 256
_LONGEST_REMEMBERED: Final = 2048


class Prediction:
    """What the head of a usual prediction says; the same for all requests with this head, whatever their bodies."""

    __slots__ = ("head", "headers", "kind", "length_name", "model", "question", "request_id", "version")

    def __init__(self, head: UsualHead, hidden: frozenset[bytes], authorizer: Authorizer | OpenAuthorizer) -> None:
        self.head = head
        target = parse_target(head.target)
        segments = target.segments
        self.model = segments[1]
        self.version = segments[2] if len(segments) > 2 else None
        authorization = head.values.get(b"authorization")
        self.question = authorizer.question(head.method, target, () if authorization is None else (authorization,))
        request_id = head.values.get(b"x-request-id")
        self.request_id = None if request_id is None else client_id_of((request_id,))
        self.headers = {**job_headers(head.spelled, hidden), "url_path": "", **PREDICT}
        self.length_name = None if head.length_at is None else head.spelled[head.length_at][0].decode("ascii")
        self.kind = media_type(head.values.get(b"content-type", b"").decode("latin-1"))


def allowed_by(site: ChannelSite, prediction: Prediction) -> Allowed | None:
    """Return what allows a prediction on the fast lane; ``None`` if it is denied, or allowed for another reason."""
    verdict = site.authorizer.decide(prediction.question)
    if not isinstance(verdict, Allowed) or verdict.scope is not TokenKind.INFERENCE:
        return None
    if verdict.key is not None:
        need = verdict.need
        if need is None or need.operation is not Operation.PREDICT or need.model != prediction.model:
            return None
    return verdict


class Lane:
    """
    The fast lane of a listener with predictions.

    :param predictor: The predictions of the listener.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._plane = predictor.plane
        self._hidden = predictor.hidden
        self._remembered: dict[tuple[bytes, bytes], Prediction] = {}

    def take(self, channel: ServeChannel, data: bytes) -> bool:
        """
        Take the request that is all of ``data``.

        :return: ``False`` if it is not a usual prediction, or not allowed; it has not been counted or logged then.
        """
        found = self._found(channel, data) if data.startswith(_BEGINS) else None
        if found is None:
            return False
        prediction, digits, body = found
        allowed = allowed_by(channel.site, prediction)
        if allowed is None:
            return False
        if prediction is not channel.recognized:
            self._remember(prediction, channel)
        self.submit(Quick(channel.site, channel, prediction, digits, body), allowed, channel.peer_host)
        return True

    def submit(self, quick: Quick, allowed: Allowed, peer_host: str) -> None:
        """
        Submit a prediction to a worker.

        :param allowed: What `allowed_by` has returned for it.
        :param peer_host: The host of the client.
        """
        prediction, site = quick.prediction, quick.site
        headers = dict(prediction.headers)
        if prediction.length_name is not None:
            headers[prediction.length_name] = quick.digits.decode("ascii")
        sender = None
        if allowed.key is not None:
            taken = site.take_from(peer_host, allowed, prediction.head.method, prediction.head.target)
            if isinstance(taken, Denied):
                quick.refuse(taken)
                return
            quick.sender = sender = taken
            quick.principal = allowed.key.record.name
            headers.update(sender_header(quick.principal, named_key=True))
        if quick.channel is not None:
            quick.channel.leave_to(quick)
        job_id = id_for_worker(prediction.request_id, quick.answer_id)
        job = Job(job_id, headers, [Part("body", prediction.kind, quick.body)])
        plane = self._plane.seen_by(sender)
        try:
            quick.pending = plane.enter(prediction.model, prediction.version, job, quick, None, quick.timing)
        except Exception:
            quick.fail(Failure())

    def _found(self, channel: ServeChannel, data: bytes) -> tuple[Prediction, bytes, bytes] | None:
        """Return what the head says, the digits of the length, and the body; ``None`` for another kind of request."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end]
        prediction: Prediction | None = channel.recognized
        digits = None if prediction is None else prediction.head.digits_of(head)
        if prediction is None or digits is None:
            prediction = self.recognize(head, channel.site.authorizer)
            digits = None if prediction is None else prediction.head.digits_of(head)
        if prediction is None or digits is None:
            return None
        body = data[end + 4 :]
        return (prediction, digits, body) if len(body) == int(digits) <= channel.limits.body else None

    def recognize(self, head: bytes, authorizer: Authorizer | OpenAuthorizer) -> Prediction | None:
        """Return what a head says; ``None`` if it is not that of a usual prediction."""
        usual = usual_head(head)
        if usual is None:
            return None
        prediction = self._remembered.get(usual.key)
        if prediction is not None:
            return prediction
        segments = parse_target(usual.target).segments
        if not 2 <= len(segments) <= 3 or segments[0] != _PREDICTIONS or "" in segments:
            return None
        if is_form(usual.values.get(b"content-type", b"").decode("latin-1")):
            return None
        return Prediction(usual, self._hidden, authorizer)

    def _remember(self, prediction: Prediction, channel: ServeChannel) -> None:
        """Remember the head of a request that was allowed; clients without a key have no share in this memory."""
        # A client that chooses ids has another head for each request.
        if prediction.head.size <= _LONGEST_REMEMBERED and b"x-request-id" not in prediction.head.values:
            channel.recognized = prediction
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[prediction.head.key] = prediction


class Quick:
    """
    A prediction on the fast lane, which receives its response from the queue.

    :ivar prediction: What its head says.
    :ivar digits: The length of its body, as spelled.
    :ivar body: Its body.
    :ivar channel: Its connection; ``None`` while another process has that (`twisted_serve.fronts`).
    :ivar pending: The request in the queue or at a worker; ``None`` before it is there.
    :ivar sender: The sender with a named key, and its name.
    """

    __slots__ = (
        "_answer",
        "_began",
        "_response",
        "answer_id",
        "body",
        "channel",
        "digits",
        "over",
        "pending",
        "prediction",
        "principal",
        "sender",
        "site",
        "timing",
    )

    streams = True

    def __init__(
        self, site: ChannelSite, channel: ServeChannel | None, prediction: Prediction, digits: bytes, body: bytes
    ) -> None:
        self.site = site
        self.channel = channel
        self.prediction = prediction
        self.digits = digits
        self.body = body
        self.over = False
        self.answer_id = prediction.request_id or fresh_id()
        self.pending: PendingRequest | None = None
        self.principal: str | None = None
        self.sender: Sender | None = None
        self._began = began = site.reactor.seconds()
        self.timing = Timing(began)
        self._answer: Deferred[Item] | None = None
        self._response: Response | None = None

    def answered(self, item: Item) -> None:
        """Answer the client."""
        try:
            lines = usual_lines(item) if self._answer is None else None
        except Exception:
            # A header of the handler that cannot be sent; nothing has been.
            self.fail(Failure())
            return
        if lines is None:
            self._delivered().callback(item)
            return
        try:
            self._answer_usually(lines, item.body)
        except Exception:
            _log.failure("A request failed")
            self._connected().transport.abortConnection()

    def _answer_usually(self, lines: bytes, body: bytes) -> None:
        channel = self.channel
        if channel is None:
            raise RuntimeError(_ELSEWHERE)
        self.over = True
        channel.answer_quickly(self.answer_id, lines, body)
        self.log(channel.address)
        channel.go_on()

    def log(self, peer: tuple[str, int] | None) -> None:
        """Log and count the request, whose usual answer has been sent to a client at an address."""
        prediction = self.prediction
        self.site.log_quick(
            peer,
            prediction.head.method,
            prediction.head.target,
            self._began,
            self.answer_id,
            prediction.request_id is not None,
            self.principal,
        )
        if self.sender is not None:
            self.sender.leave()

    def failed(self, error: ServeError) -> None:
        """Answer the client with an error."""
        self._delivered().errback(error)

    def fail(self, failure: Failure) -> None:
        """Answer the client with the error for a failure, unless it has its answer."""
        if not self.over:
            self._delivered().errback(failure)

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Send a part of the response to the client."""
        if self._response is None:
            self.take_over()
        if self._response is not None:
            self._response.chunk(item, producer)

    def take_over(self) -> Deferred[Item]:
        """Make a `ServeRequest`, whose response the Deferred makes that is returned."""
        request = self._request()
        self._response = response = Response(request)
        self._answer = answer = Deferred[Item](self._cancelled)
        deliver(answer.addCallbacks(response.finish, response.fail), request)
        return answer

    def refuse(self, denied: Denied) -> None:
        """Answer a request whose key has reached a limit."""
        request, site = self._request(), self.site
        if self.body:
            self._connected().refuse_early(request, lambda request: site.refuse(request, denied))
        else:
            request.write(site.refuse(request, denied))
            request.finish()

    def _delivered(self) -> Deferred[Item]:
        return self.take_over() if self._answer is None else self._answer

    def _cancelled(self, _answer: Deferred[Item]) -> None:
        if self.pending is not None:
            self.pending.abandon()

    def _connected(self) -> ServeChannel:
        """
        Return the channel.

        :raise RuntimeError: while another process has the connection.
        """
        if self.channel is None:
            raise RuntimeError(_ELSEWHERE)
        return self.channel

    def _request(self) -> ServeRequest:
        """Return the request as the channel would have made it."""
        head, channel = self.prediction.head, self._connected()
        request = ServeRequest(channel)
        request.spelled_headers = head.headers(self.digits)
        for name, value in request.spelled_headers:
            request.requestHeaders.addRawHeader(name, value)
        request.plain = RARE.isdisjoint(head.values)
        request.method, request.uri, request.clientproto = head.method, head.target, b"HTTP/1.1"
        request.path, request.args = head.target, {}
        request.content = BytesIO(self.body)
        request.began, request.timing = self._began, self.timing
        request.site = self.site
        request.identify(self.prediction.request_id, self.answer_id)
        request.sender, request.principal = self.sender, self.principal
        channel.adopt(request)
        return request
