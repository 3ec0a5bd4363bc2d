# SPDX-License-Identifier: Apache-2.0
"""Base class of the tests for fetching: a store and a web site."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from twisted.web.resource import Resource
from zope.interface import implementer

from twisted_serve.archives.fetch import Fetcher, FetchLimits
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.errors import DownloadFailed

HERE = AllowedUrls((r"https?://good\.example/.*", r"file:///.*", r"http://good\.example.*"))

URL = "http://good.example/m.mar"


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
        """The download fails with TorchServe's text and leaves nothing behind."""
        error = self.failureResultOf(self.fetched(url, self.fetcher(allowed)), DownloadFailed).value
        self.assertEqual(error.message, f"Failed to download archive from: {url}")
        self.assertNothingLeft()

    def assertNothingLeft(self) -> None:
        self.assertEqual(os.listdir(self.store), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


@implementer(IAgent)
class Recording:
    """An agent that records the requested URLs."""

    def __init__(self, agent: IAgent, requests: list[bytes]) -> None:
        self.agent = agent
        self.requests = requests

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        self.requests.append(uri)
        return self.agent.request(method, uri, headers, bodyProducer)
