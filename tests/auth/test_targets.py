# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.targets``.
"""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.targets import Target, parse_target


class TargetTests(SynchronousTestCase):
    """Tests for reading a request target."""

    def test_plain(self) -> None:
        """A path is its segments, and what follows the question mark is the query."""
        self.assertEqual(parse_target(b"/models/m/1.0?limit=3&x=%20"), Target(("models", "m", "1.0"), b"limit=3&x=%20"))

    def test_trailing_slashes(self) -> None:
        """Slashes at the end do not count; those inside make empty segments."""
        self.assertEqual(parse_target(b"/models/m//").segments, ("models", "m"))
        self.assertEqual(parse_target(b"/models//m").segments, ("models", "", "m"))
        self.assertEqual(parse_target(b"/").segments, ())

    def test_absolute_form(self) -> None:
        """A proxy's absolute form is its path."""
        self.assertEqual(parse_target(b"http://user@host:1/token?type=x"), Target(("token",), b"type=x"))
        self.assertEqual(parse_target(b"HTTPS://host"), Target(()))

    def test_fragment(self) -> None:
        """A fragment ends the target."""
        self.assertEqual(parse_target(b"/ping#/token?x"), Target(("ping",)))

    def test_flaws(self) -> None:
        """A path which two readers could understand differently leads nowhere, and says why."""
        for raw in (
            b"/models/../token",
            b"/models/%2e%2E/token",
            b"/./token",
            b"/models%2Ftoken",
            b"/models%5ctoken",
            b"/models\\token",
            b"/%00",
            b"/a%0d%0aInjected",
            b"/%zz",
            b"/%4",
            b"/%",
            b"/%ff",
            b"*",
            b"",
            b"token",
            b"//token",
            b"///token",
            b"http://host//token",
            b"ftp://host/token",
            b"host:443",
        ):
            target = parse_target(raw)
            self.assertEqual(target.segments, (), raw)
            self.assertIsNotNone(target.flaw, raw)

    def test_double_encoding(self) -> None:
        """A segment is decoded once."""
        self.assertEqual(parse_target(b"/%2574oken").segments, ("%74oken",))

    @given(
        st.lists(st.text(min_size=1).filter(lambda text: text.isprintable() and text not in (".", "..")), max_size=5)
    )
    def test_round_trip(self, segments: list[str]) -> None:
        """What was quoted segment by segment is read back, unless it holds a slash."""
        target = parse_target(b"/" + "/".join(quote(segment, safe="") for segment in segments).encode())
        if any("/" in segment or "\\" in segment for segment in segments):
            self.assertIsNotNone(target.flaw)
        else:
            self.assertEqual(target, Target(tuple(segments)))

    @given(st.binary(max_size=200))
    def test_never_raises(self, raw: bytes) -> None:
        """Anything can be read; no segment of it is a step, a slash or unprintable."""
        for segment in parse_target(raw).segments:
            self.assertNotIn(segment, (".", ".."))
            self.assertNotIn("/", segment)
            self.assertTrue(segment.isprintable())
