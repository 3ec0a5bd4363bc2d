# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.fetch`: responses and redirects."""

from __future__ import annotations

import os
import stat

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.static import Data

from tests.archives.fetch_case import URL, FetchTestCase
from twisted_serve.archives.fetch import FetchLimits
from twisted_serve.errors import InternalError


class Redirect(Resource):
    """Redirects to a URL."""

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
    """Responds with a status code."""

    isLeaf = True

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(self.code)
        return b"no archive"


class HttpTests(FetchTestCase):
    """Tests for downloads over HTTP."""

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
    """Tests for redirects."""

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
        A redirect to a URL that is not allowed is not followed.

        To our own network, to our files, by user information or by ``..``: each URL is checked separately.
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


class LimitsTests(SynchronousTestCase):
    """Tests for invalid limits."""

    def test_names(self) -> None:
        """They are refused by name."""
        for name, value in (("max_size", 0), ("timeout", 0), ("max_redirects", -1)):
            self.assertIn(name, str(self.assertRaises(ValueError, FetchLimits, **{name: value})))
