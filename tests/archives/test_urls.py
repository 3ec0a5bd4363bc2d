# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.urls`."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.urls import AllowedUrls, basename, has_scheme, is_remote, local_path

EVERYTHING = AllowedUrls((".*",))


class AllowedUrlsTests(SynchronousTestCase):
    """Tests for `AllowedUrls`."""

    def test_whole_url(self) -> None:
        """An expression has to match the whole URL, in any case of letters; one of several is enough."""
        allowed = AllowedUrls(("http://nothing/", r"https://good\.example/.*\.mar"))
        self.assertTrue(allowed.permit("https://good.example/a/b.mar"))
        self.assertTrue(allowed.permit("HTTPS://Good.Example/a/b.MAR"))
        self.assertFalse(allowed.permit("https://good.example/b.mar.exe"))
        self.assertFalse(allowed.permit("https://evil.example/?https://good.example/b.mar"))
        self.assertFalse(allowed.permit("http://good.example/b.mar"))

    def test_nothing(self) -> None:
        """Without expressions nothing is permitted (CVE-2023-43654 was that everything is)."""
        self.assertFalse(AllowedUrls(()).permit("http://h/x.mar"))

    def test_sound(self) -> None:
        """Plain URLs of the three schemes can be permitted."""
        for url in (
            "http://h/x",
            "https://h:8443/x?a=b&c=%2F",
            "http://[::1]:80/x",
            "file:///a/b%20c.mar",
            "file://localhost/a",
            "file:/a",
            "HTTP://h/x",
        ):
            with self.subTest(url):
                self.assertTrue(EVERYTHING.permit(url))

    def test_unsound(self) -> None:
        """A URL that reads differently to different readers is not permitted by any expression."""
        for url in (
            "http://good.example@evil.example/x",
            "http://good.example:80@evil.example/x",
            "http://good.example%40evil.example/x",
            "http://good.example\\@evil.example/x",
            "http://good.example\t.evil.example/x",
            "http://good.example/x\n",
            " http://good.example/x",
            "http://good.example:x/",
            "http://a:80:81/",
            "http://[::1/x",
            "http:///x",
            "http:/x",
            "http:x",
            "http://h/%00",
            "http://göod.example/x",
            "file:///store/../../etc/x",
            "file:///store/%2e%2e/%2e%2e/etc/x",
            "file:///store/..%2f..%2fetc/x",
            "file://store/x",
            "file:x",
            "file:///a%00b",
            "s3://bucket/x",
            "ftp://h/x",
            "gopher://h/x",
            "x.mar",
            "",
            "http://h/" + "x" * 9000,
        ):
            with self.subTest(url):
                self.assertFalse(EVERYTHING.permit(url))

    def test_bad_expression(self) -> None:
        """An invalid expression is refused with its text."""
        error = self.assertRaises(ValueError, AllowedUrls, ("ok", "("))
        self.assertIn("allowed_urls has '(', which is no regular expression", str(error))

    @given(st.text(), st.text())
    def test_any_text(self, pattern_text: str, url: str) -> None:
        """Any text is permitted or refused without an exception; a permitted one has one of the three schemes."""
        if EVERYTHING.permit(url):
            self.assertTrue(is_remote(url))


class PartsTests(SynchronousTestCase):
    """Tests for the functions that extract parts of a URL."""

    def test_schemes(self) -> None:
        """URLs are distinguished from names in the store."""
        self.assertTrue(is_remote("FILE:/x") and is_remote("https:x"))
        self.assertFalse(is_remote("x.mar") or is_remote("s3://b/x") or is_remote("files:x"))
        self.assertTrue(has_scheme("s3://b/x") and has_scheme("http:x"))
        self.assertFalse(has_scheme("a/b.mar") or has_scheme("c:x") or has_scheme("/a://b"))

    def test_basename(self) -> None:
        """The name of the downloaded file is the last component, without a query; hidden and empty ones are none."""
        self.assertEqual(basename("http://h/a/b.mar?c=/d.mar#/e"), "b.mar")
        self.assertEqual(basename("file:///a/b%20c.mar"), "b%20c.mar")
        for url in ("http://h/a/", "http://h", "http://h/.bashrc", "http://h/.", "http://h/" + "x" * 256):
            self.assertIsNone(basename(url))

    def test_local_path(self) -> None:
        """A ``file:`` URL names a path, percent escapes resolved."""
        self.assertEqual(local_path("file:///a/b%20c.mar?d"), Path("/a/b c.mar"))
        self.assertEqual(local_path("FILE://localhost/a"), Path("/a"))
        self.assertIsNone(local_path("http://h/a"))
