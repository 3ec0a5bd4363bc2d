# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.endpoints`, beside Twisted's own reading of descriptions.
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis.strategies import lists, sampled_from, text
from twisted.internet import endpoints
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.endpoints import Description, endpoint_types, flaw_of, parse_description

TWISTED: Any = endpoints

# What the grammar is made of, and words that mean something.
PIECES = ["tcp", "unix", "haproxy", "interface", "127.0.0.1", "8080", "mode", ":", ":", "=", "\\", "\\:", "", " ", "é"]
DESCRIPTIONS = lists(sampled_from(PIECES), max_size=12).map("".join)


class ParseTests(SynchronousTestCase):
    """Tests for `parse_description`."""

    @given(DESCRIPTIONS | text())
    @example("tcp:8080:interface=127.0.0.1=x")
    @example("a=tcp:8080")
    @example("tcp:\\")
    def test_as_twisted(self, word: str) -> None:
        """A description has the arguments that Twisted finds in it, or is refused where Twisted raises something."""
        try:
            positional, named = TWISTED._parse(word)
            kind = positional[0]
        except (RuntimeError, IndexError, UnicodeError):
            self.assertRaises(ValueError, parse_description, word)
        else:
            self.assertEqual(parse_description(word), Description(kind, tuple(positional[1:]), named))

    def test_arguments(self) -> None:
        """An argument stands at its position, or has its name."""
        description = parse_description(r"unix:/run/a\:b:mode=600")
        self.assertEqual(description.argument("address", 0), "/run/a:b")
        self.assertEqual(description.argument("mode", 1), "600")
        self.assertEqual(description.argument("backlog", 2), "")

    def test_innermost(self) -> None:
        """Below a proxy protocol is a port, however often."""
        for word in ("tcp:80:backlog=9", "haproxy:tcp:80:backlog=9", "haproxy:haproxy:tcp:80:backlog=9"):
            self.assertEqual(parse_description(word).innermost, Description("tcp", ("80",), {"backlog": "9"}))
        self.assertEqual(parse_description("haproxy").innermost.kind, "haproxy")
        self.assertEqual(parse_description("haproxy:" * 5000 + "tcp:80").innermost.kind, "tcp")

    def test_encrypted(self) -> None:
        """Which endpoints use TLS is known, but for those of plug-ins."""
        for word, encrypted in (
            ("tcp:80", False),
            ("unix:/x", False),
            ("systemd:domain=INET:index=0", False),
            ("ssl:443", True),
            ("haproxy:ssl:443", True),
            ("tls:/etc/pem:443", True),
            ("onion:80", None),
        ):
            self.assertIs(parse_description(word).encrypted, encrypted, word)


class FlawTests(SynchronousTestCase):
    """Tests for `flaw_of`."""

    def test_none(self) -> None:
        """The types of Twisted are known, its plug-ins included."""
        for word in ("tcp:80", "tcp6:80", "ssl:443", "unix:/x", "systemd:domain=INET:index=0", "haproxy:tcp:80"):
            self.assertIsNone(flaw_of(word), word)

    def test_unknown(self) -> None:
        """An unknown type is named, on one line, with all that are known; it may stand below a proxy protocol."""
        known = ", ".join(sorted(endpoint_types()))
        for word in ("tpc:80", "haproxy:tpc:80"):
            self.assertEqual(flaw_of(word), f"'tpc' is no type of endpoint; there are {known}")
        self.assertIn("tcp", known)

    def test_standard_input(self) -> None:
        """Standard input is no port."""
        self.assertIn("'stdio' is no type", str(flaw_of("stdio:")))
        self.assertIn("'stdio' is no type", str(flaw_of("haproxy:stdio:")))

    def test_no_description(self) -> None:
        """A text that Twisted cannot split has a reason, too."""
        self.assertEqual(flaw_of("tcp:80\\"), "there is nothing after its last backslash")
        self.assertEqual(flaw_of("port=80"), "it has no type")
        self.assertEqual(flaw_of("tcp:pört=80"), "the name of an argument is not ASCII")
