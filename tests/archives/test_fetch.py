# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.fetch`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest import mock

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.static import Data
from zope.interface import implementer

from tests.threads import Threads
from twisted_serve.archives.fetch import Fetcher, FetchLimits
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.errors import DownloadFailed, InternalError

HERE = AllowedUrls((r"https?://good\.example/.*", r"file:///.*", r"http://good\.example.*"))
URL = "http://good.example/m.mar"


class Redirect(Resource):
    """Redirects to a place."""

    isLeaf = True

    def __init__(self, *locations: str, code: int = 302) -> None:
        super().__init__()
        self.locations = locations
        self.code = code

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(self.code)
        request.responseHeaders.setRawHeaders(b"location", [location.encode() for location in self.locations])
        return b"a body that nobody reads"


class Status(Resource):
    """Answers with a code."""

    isLeaf = True

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(self.code)
        return b"no archive"


class FetchTestCase(SynchronousTestCase):
    """A test with a directory and a site."""

    limits = FetchLimits(max_size=1000, timeout=60, max_redirects=5)

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.store = self.root / "store"
        self.store.mkdir()
        self.target = self.store / "m.mar"
        self.clock = Clock()
        self.site = Resource()
        self.requests: list[bytes] = []
        self.agent: IAgent = Recording(RequestTraversalAgent(self.site), self.requests)

    def fetcher(self, allowed: AllowedUrls = HERE, defer_to_thread: Any = maybeDeferred) -> Fetcher:
        return Fetcher(self.agent, self.clock, allowed, self.limits, defer_to_thread)

    def fetched(self, url: str = URL, fetcher: Fetcher | None = None) -> Deferred[None]:
        return Deferred.fromCoroutine((fetcher or self.fetcher()).fetch(url, self.target))

    def assertFailed(self, url: str = URL, allowed: AllowedUrls = HERE) -> None:
        """The download fails with the predecessor's text and leaves nothing behind."""
        error = self.failureResultOf(self.fetched(url, self.fetcher(allowed)), DownloadFailed).value
        self.assertEqual(error.message, f"Failed to download archive from: {url}")
        self.assertNothingLeft()

    def assertNothingLeft(self) -> None:
        self.assertEqual(os.listdir(self.store), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


@implementer(IAgent)
class Recording:
    """An agent that remembers which URLs were asked for."""

    def __init__(self, agent: IAgent, requests: list[bytes]) -> None:
        self.agent = agent
        self.requests = requests

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        self.requests.append(uri)
        return self.agent.request(method, uri, headers, bodyProducer)


class HttpTests(FetchTestCase):
    """Archives from elsewhere."""

    def test_fetched(self) -> None:
        """The archive arrives whole, under its name, and private to the owner."""
        self.site.putChild(b"m.mar", Data(b"x" * 1000, "application/zip"))
        self.assertIsNone(self.successResultOf(self.fetched()))
        self.assertEqual(self.target.read_bytes(), b"x" * 1000)
        self.assertEqual(stat.S_IMODE(self.target.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.store), ["m.mar"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_exists(self) -> None:
        """A file that is in the store already is not replaced; nothing is requested."""
        self.target.write_bytes(b"old")
        error = self.failureResultOf(self.fetched(), InternalError).value
        self.assertEqual(error.message, "Model file already exists m.mar")
        self.assertEqual(self.target.read_bytes(), b"old")
        self.assertEqual(self.requests, [])

    def test_dangling_link(self) -> None:
        """A link in the store is not written through, even if it points to nothing."""
        self.target.symlink_to(self.root / "elsewhere")
        self.failureResultOf(self.fetched(), InternalError)
        self.assertEqual(os.listdir(self.root), ["store"])

    def test_not_allowed(self) -> None:
        """CVE-2023-43654: a URL that is not allowed is not asked for."""
        self.assertFailed("http://evil.example/m.mar")
        self.assertFailed("http://good.example@evil.example/m.mar")
        self.assertFailed("http://good.example\\@evil.example/m.mar")
        self.assertEqual(self.requests, [])

    def test_status(self) -> None:
        """Anything but 200 is a failure."""
        for code in (204, 206, 304, 403, 404, 500):
            self.site.putChild(b"m.mar", Status(code))
            self.assertFailed()

    def test_too_large(self) -> None:
        """An archive that says that it is too large is not read."""
        self.site.putChild(b"m.mar", Data(b"x" * 1001, "application/zip"))
        self.assertFailed()


class RedirectTests(FetchTestCase):
    """Answers which say "elsewhere"."""

    def test_followed(self) -> None:
        """Redirects between allowed URLs are followed, relative ones too."""
        self.site.putChild(b"m.mar", Redirect("http://good.example/2", code=301))
        self.site.putChild(b"2", Redirect("/3", code=307))
        self.site.putChild(b"3", Redirect("//good.example/4?signed=1", code=308))
        self.site.putChild(b"4", Data(b"archive", "application/zip"))
        self.successResultOf(self.fetched())
        self.assertEqual(self.target.read_bytes(), b"archive")
        self.assertEqual(self.requests[-1], b"http://good.example/4?signed=1")

    def test_disallowed(self) -> None:
        """
        A redirect to what is not allowed is not followed.

        To our own network, to our files, by user information or by ``..``: each URL is looked at for itself.
        """
        (self.root / "secret").write_bytes(b"secret")
        for location in (
            "http://169.254.169.254/latest/meta-data/",
            "http://evil.example/",
            "//evil.example/",
            "https://good.example@evil.example/",
            "http://good.example:80@evil.example/",
            "http://good.example\\@evil.example/",
            f"file://{self.root}/secret",
            "FILE:///etc/passwd",
            "file:/etc/passwd",
            "ftp://good.example/x",
            "data:,x",
            "/a/%2e%2e/b",
            "http://good.example.evil.example\n/",
        ):
            with self.subTest(location):
                self.requests.clear()
                self.site.putChild(b"m.mar", Redirect(location))
                self.assertFailed()
                self.assertEqual(self.requests, [URL.encode()])

    def test_nowhere(self) -> None:
        """A redirect without a place, or with two, is a failure."""
        for redirect in (Redirect(), Redirect("/2", "/3")):
            self.site.putChild(b"m.mar", redirect)
            self.assertFailed()

    def test_for_ever(self) -> None:
        """After five redirects it is enough."""
        self.site.putChild(b"m.mar", Redirect(URL))
        self.assertFailed()
        self.assertEqual(len(self.requests), 6)


@implementer(IResponse)
class SlowResponse:
    """A response whose body comes when the test says so."""

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
    """Downloads that take their time, or do not come to an end."""

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
        """A server that sends a byte now and then does not hold us for ever."""
        fetching = self.fetched()
        body = self.body(fetching)
        for _ in range(60):
            body.dataReceived(b"x")
            self.clock.advance(1)
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
        """Of two downloads to one name the second is told that the file exists; the first goes on."""
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
        """If somebody else puts a file there during the download, theirs stays."""
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


class FileTests(FetchTestCase):
    """Archives from this machine."""

    def setUp(self) -> None:
        super().setUp()
        self.source = self.root / "a b.mar"
        self.source.write_bytes(b"archive")
        self.url = self.source.as_uri()

    def test_copied(self) -> None:
        """A file is copied into the store, private to the owner."""
        self.successResultOf(self.fetched(self.url))
        self.assertEqual(self.target.read_bytes(), b"archive")
        self.assertEqual(stat.S_IMODE(self.target.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.store), ["m.mar"])

    def test_climbing(self) -> None:
        """CVE-2024-35198: ``..`` in a ``file:`` URL is not allowed by an expression for another directory."""
        allowed = AllowedUrls((f"file://{self.store}/.*",))
        for climb in ("..", "%2e%2e", "%252e%252e", ".%2E"):
            self.assertFailed(f"file://{self.store}/{climb}/{self.source.name.replace(' ', '%20')}", allowed)

    def test_not_a_file(self) -> None:
        """What is missing, a directory, a device or a FIFO is a failed download; nothing waits for it."""
        os.mkfifo(self.root / "fifo")
        for path in (self.root / "gone", self.root, Path("/dev/zero"), self.root / "fifo"):
            self.assertFailed(path.as_uri())

    def test_too_large(self) -> None:
        """The limit of size holds here, too."""
        self.source.write_bytes(b"x" * 1001)
        self.assertFailed(self.url)

    def test_cancelled_in_thread(self) -> None:
        """A copy that a thread finishes after it was cancelled is removed."""
        for steps in (0, 1):
            threads = Threads(holding=True)
            fetching = self.fetched(self.url, self.fetcher(defer_to_thread=threads))
            for _ in range(steps):
                threads.work_once()
            self.assertNoResult(fetching)
            fetching.cancel()
            self.failureResultOf(fetching, CancelledError)
            threads.work_once()
            self.assertNothingLeft()

    def test_cancelled_after_publishing(self) -> None:
        """A file that got its name when nobody waited any more is removed."""
        threads = Threads(holding=True)
        fetching = self.fetched(self.url, self.fetcher(defer_to_thread=threads))
        threads.work_once()
        work, _ = threads.held[0]
        work()
        self.assertTrue(self.target.exists())
        threads.held[0] = (lambda: None, threads.held[0][1])
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        threads.work_once()
        self.assertNothingLeft()

    def test_no_hard_links(self) -> None:
        """Where the store has no hard links, a file still gets its name without replacing another's."""
        no_links = OSError(errno.EOPNOTSUPP, "no links here")
        with mock.patch("os.link", side_effect=no_links):
            self.successResultOf(self.fetched(self.url))
            self.assertEqual(self.target.read_bytes(), b"archive")
            self.assertEqual(os.listdir(self.store), ["m.mar"])
            self.target.write_bytes(b"theirs")
            threads = Threads(holding=True)
            self.target.unlink()
            fetching = self.fetched(self.url, self.fetcher(defer_to_thread=threads))
            threads.work_once()
            self.target.write_bytes(b"theirs")
            threads.work_once()
            self.failureResultOf(fetching, InternalError)
            self.assertEqual(self.target.read_bytes(), b"theirs")
            self.target.unlink()
            with mock.patch("os.replace", side_effect=no_links):
                self.failureResultOf(self.fetched(self.url), InternalError)
            self.assertNothingLeft()


class LimitsTests(SynchronousTestCase):
    """Limits that make no sense."""

    def test_names(self) -> None:
        """They are refused by name."""
        for name, value in (("max_size", 0), ("timeout", 0), ("max_redirects", -1)):
            self.assertIn(name, str(self.assertRaises(ValueError, FetchLimits, **{name: value})))
