# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.fetch`: bodies that arrive in chunks, late or not at all."""

from __future__ import annotations

import os
import stat
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, capturedLogs, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from tests.archives.fetch_case import URL, FetchTestCase
from twisted_serve.archives.fetch import FetchLimits
from twisted_serve.errors import DownloadFailed, InternalError


@implementer(IResponse)
class SlowResponse:
    """A response with a body that arrives when the test says so."""

    version = (b"HTTP", 1, 1)
    code = 200
    phrase = b"OK"
    headers = Headers()
    request = None
    previousResponse = None

    def __init__(self, length: object = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.body: Protocol | None = None
        self.aborted = False

    def deliverBody(self, protocol: Protocol) -> None:
        self.body = protocol
        protocol.makeConnection(self)

    def abortConnection(self) -> None:
        self.aborted = True

    loseConnection = abortConnection

    def setPreviousResponse(self, response: IResponse) -> None:
        raise AssertionError("nobody should call this")


@implementer(IAgent)
class SlowAgent:
    """An agent that answers when the test says so."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.answer: Deferred[IResponse] = Deferred(self._cancel)

    def _cancel(self, _answer: object) -> None:
        self.cancelled += 1

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        return self.answer


class SlowTests(FetchTestCase):
    """Tests for downloads that are slow or never complete."""

    def setUp(self) -> None:
        super().setUp()
        self.slow = SlowAgent()
        self.agent = self.slow
        self.response = SlowResponse()

    def body(self, fetching: Deferred[None]) -> Protocol:
        self.assertNoResult(fetching)
        self.slow.answer.callback(self.response)
        self.assertNoResult(fetching)
        assert self.response.body is not None
        return self.response.body

    def test_pieces(self) -> None:
        """The archive has no name before it is whole."""
        fetching = self.fetched()
        body = self.body(fetching)
        body.dataReceived(b"12")
        self.assertFalse(self.target.exists())
        body.dataReceived(b"3")
        body.connectionLost(Failure(ResponseDone()))
        self.successResultOf(fetching)
        self.assertEqual(self.target.read_bytes(), b"123")

    def test_body_without_length(self) -> None:
        """A body that ends with its connection is taken as it is: an archive has checksums."""
        fetching = self.fetched()
        body = self.body(fetching)
        body.dataReceived(b"12")
        body.connectionLost(Failure(PotentialDataLoss()))
        self.successResultOf(fetching)

    def test_scan_does_not_see_it(self) -> None:
        """While it comes in, the archive is a hidden file that only we may read."""
        self.body(self.fetched())
        (partial,) = self.store.iterdir()
        self.assertTrue(partial.name.startswith("."))
        self.assertEqual(stat.S_IMODE(partial.stat().st_mode), 0o600)

    def test_more_than_said(self) -> None:
        """A body that does not end is cut off at the limit, and the connection closed."""
        fetching = self.fetched()
        body = self.body(fetching)
        body.dataReceived(b"x" * 1000)
        self.assertNoResult(fetching)
        body.dataReceived(b"x")
        self.failureResultOf(fetching, DownloadFailed)
        self.assertTrue(self.response.aborted)
        body.dataReceived(b"x")
        body.connectionLost(Failure(ConnectionLost()))
        self.assertNothingLeft()

    def test_connection_lost(self) -> None:
        """A connection that breaks off leaves nothing behind."""
        fetching = self.fetched()
        body = self.body(fetching)
        body.dataReceived(b"x")
        body.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(fetching, DownloadFailed)
        self.assertNothingLeft()

    def test_refused(self) -> None:
        """A server that does not answer is a failed download."""
        fetching = self.fetched()
        self.slow.answer.errback(DNSLookupError())
        self.failureResultOf(fetching, DownloadFailed)
        self.assertNothingLeft()

    def test_too_slow(self) -> None:
        """After the time limit the download fails, whether there was an answer yet or not."""
        fetching = self.fetched()
        self.clock.advance(59.9)
        self.assertNoResult(fetching)
        self.clock.advance(0.1)
        self.failureResultOf(fetching, DownloadFailed)
        self.assertEqual(self.slow.cancelled, 1)
        self.assertNothingLeft()

    def test_body_too_slow(self) -> None:
        """A server that sends a byte now and then cannot keep a download running indefinitely."""
        fetching = self.fetched()
        body = self.body(fetching)
        for _ in range(60):
            body.dataReceived(b"x")
            self.clock.advance(1)
        self.failureResultOf(fetching, DownloadFailed)
        self.assertTrue(self.response.aborted)
        body.connectionLost(Failure(ConnectionLost()))
        self.assertNothingLeft()

    def test_head_too_slow(self) -> None:
        """The headers of each response, redirects included, have a separate timeout."""
        self.limits = FetchLimits(timeout=600, head_timeout=10)
        fetching = self.fetched()
        self.clock.advance(10)
        self.failureResultOf(fetching, DownloadFailed)
        self.assertEqual(self.slow.cancelled, 1)
        self.assertNothingLeft()

    def test_stalled(self) -> None:
        """A body that stalls is aborted long before the total timeout."""
        self.limits = FetchLimits(timeout=600, stall_timeout=10)
        fetching = self.fetched()
        body = self.body(fetching)
        for _ in range(3):
            self.clock.advance(9)
            body.dataReceived(b"x")
        self.clock.advance(9.9)
        self.assertNoResult(fetching)
        self.clock.advance(0.1)
        self.failureResultOf(fetching, DownloadFailed)
        self.assertTrue(self.response.aborted)
        body.connectionLost(Failure(ConnectionLost()))
        self.assertNothingLeft()

    def test_cancelled(self) -> None:
        """A cancelled download closes the connection and leaves nothing behind."""
        fetching = self.fetched()
        self.body(fetching).dataReceived(b"x")
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.assertTrue(self.response.aborted)
        self.assertNothingLeft()

    def test_same_name_at_once(self) -> None:
        """Of two concurrent downloads to one name the second fails because the file exists; the first continues."""
        fetcher = self.fetcher()
        first = self.fetched(fetcher=fetcher)
        error = self.failureResultOf(self.fetched("http://good.example/other/m.mar", fetcher), InternalError).value
        self.assertEqual(error.message, "Model file already exists m.mar")
        self.body(first).connectionLost(Failure(ResponseDone()))
        self.successResultOf(first)
        self.target.unlink()
        self.slow.answer = fail(DNSLookupError())
        self.failureResultOf(self.fetched(fetcher=fetcher), DownloadFailed)

    def test_name_taken_meanwhile(self) -> None:
        """A file created by another process during the download is kept."""
        fetching = self.fetched()
        body = self.body(fetching)
        self.target.write_bytes(b"theirs")
        body.connectionLost(Failure(ResponseDone()))
        self.failureResultOf(fetching, InternalError)
        self.assertEqual(self.target.read_bytes(), b"theirs")
        self.assertEqual(os.listdir(self.store), ["m.mar"])

    def test_no_store(self) -> None:
        """If the file cannot be made, the error is ours."""
        self.store.rmdir()
        fetching = self.fetched()
        self.slow.answer.callback(self.response)
        error = self.failureResultOf(fetching, InternalError).value
        self.assertEqual(error.message, "Failed to save model: m.mar")

    def test_disk_full(self) -> None:
        """When the disk is full, the connection is closed and the error is ours."""
        fetching = self.fetched()
        body = self.body(fetching)
        with open("/dev/full", "wb", buffering=0) as full:
            body.file.close()  # type: ignore[attr-defined]
            body.file = full  # type: ignore[attr-defined]
            body.dataReceived(b"x")
        error = self.failureResultOf(fetching, InternalError).value
        self.assertEqual(error.message, "Failed to save model: m.mar")
        self.assertTrue(self.response.aborted)
        self.assertNothingLeft()

    def test_reasons(self) -> None:
        """The log says what took too long, and not how it was ended."""
        for limits, reason in (
            (FetchLimits(timeout=600, head_timeout=10), "the head of the answer did not come within 10 seconds"),
            (FetchLimits(timeout=10), "the archive did not come within 10 seconds"),
        ):
            self.limits = limits
            with capturedLogs() as events:
                fetching = self.fetched()
                self.clock.advance(10)
            self.failureResultOf(fetching, DownloadFailed)
            self.assertEqual([event["reason"] for event in events if "reason" in event], [reason])
            self.slow.answer = Deferred(self.slow._cancel)

    def test_signature_is_not_logged(self) -> None:
        """The query of a URL, which may be a signature, does not get into the log."""
        events: list[Any] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        fetching = self.fetched(URL + "?X-Amz-Signature=s3cret")
        self.slow.answer.errback(DNSLookupError())
        self.failureResultOf(fetching, DownloadFailed)
        (event,) = (e for e in events if "Cannot fetch" in (e.get("log_format") or ""))
        self.assertEqual(event["url"], URL)
        self.assertNotIn("s3cret", str({k: v for k, v in event.items() if k != "log_source"}))
