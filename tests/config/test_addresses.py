# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.addresses`.
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis.strategies import builds, from_regex, integers, ip_addresses, just, lists, one_of, sampled_from, text
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.addresses import (
    INFERENCE_PORTS,
    MANAGEMENT_PORTS,
    METRICS_PORTS,
    Address,
    is_loopback,
    parse_address,
    same_listener,
)

# Descriptions of endpoints that could be opened, with their arguments in any order.
endpoints = builds(
    lambda wrapper, port, arguments: ":".join((wrapper + port, *arguments)),
    sampled_from(["", "haproxy:"]),
    one_of(
        builds("tcp:{}".format, integers(0, 65535)),
        builds("tcp6:{}".format, integers(0, 65535)),
        just("tcp:port=80"),
        just("systemd:domain=INET:index=0"),
        just(r"unix:/run/a\:b:mode=600"),
    ),
    lists(
        sampled_from(
            ["interface=127.0.0.1", "interface=0.0.0.0", r"interface=\:\:1", "interface=localhost", "backlog=9"]
        ),
        max_size=3,
    ),
)

# Arguments of endpoints, some of which mean something else than it seems.
ARGUMENTS = [
    *("80", "9", "", "127.0.0.1", "0.0.0.0", "port=80", "backlog=9", "interface=127.0.0.1", "interface=0.0.0.0"),
    *(
        "interface=",
        r"interface\=127.0.0.1",
        r"interface=127.0.0.1\:9",
        r"inter\face=127.0.0.1",
        "interface=127.0.0.1=0",
    ),
]

addresses = one_of(
    builds(
        Address,
        sampled_from(["http", "https"]),
        one_of(ip_addresses().map(str), from_regex(r"[a-z0-9-]{1,9}(\.[a-z]{2,5})?", fullmatch=True)),
        integers(0, 65535),
    ),
    builds(Address, just("unix"), path=from_regex(r"/[a-z./ ]{1,90}", fullmatch=True)),
    builds(Address, just("endpoint"), description=endpoints),
)


class ParseTests(SynchronousTestCase):
    """Reading addresses."""

    def test_default_ports(self) -> None:
        """Each listener has its own ports for addresses without one."""
        ports = [
            parse_address(f"{scheme}://h", default).port
            for default in (INFERENCE_PORTS, MANAGEMENT_PORTS, METRICS_PORTS)
            for scheme in ("http", "https")
        ]
        self.assertEqual(ports, [80, 443, 8081, 8444, 8082, 8445])

    def test_any_case(self) -> None:
        """The scheme may be written in any case."""
        self.assertEqual(parse_address("HTTPS://h:1", INFERENCE_PORTS), Address("https", "h", 1))
        self.assertTrue(parse_address("HTTPS://h:1", INFERENCE_PORTS).secure)
        self.assertEqual(parse_address("Unix:/run/s", INFERENCE_PORTS), Address("unix", path="/run/s"))

    def test_ipv6(self) -> None:
        """An IPv6 address stands in brackets; its spelling does not matter."""
        address = parse_address("http://[0:0::0:1]:8080", INFERENCE_PORTS)
        self.assertEqual(address, Address("http", "::1", 8080))
        self.assertEqual(str(address), "http://[::1]:8080")

    @given(addresses)
    def test_round_trip(self, address: Address) -> None:
        """An address is read back from its text."""
        self.assertEqual(parse_address(str(address), INFERENCE_PORTS), address)

    @given(text())
    def test_any_text(self, word: str) -> None:
        """No text does anything but be read or be refused with the predecessor's words."""
        try:
            parse_address(word, INFERENCE_PORTS)
        except ValueError as e:
            self.assertIn(word, str(e))

    def test_invalid(self) -> None:
        """What is no address is refused, and named."""
        for word in (
            "", "8080", "127.0.0.1:8080", "ftp://h", "http://", "http://h/", "http://h:8080/x", "http://h:", "http://:80",
            "http://::1", "http://[::g]", "http://[::1", "http://a b", "http://u@h", "http://h?x", "http://h:8080 ",
            "http://h:-1", "http://h\n:80", "unix:", "unix:rel", "unix:/a\0b", "unix:/" + "x" * 107,
        ):  # fmt: skip
            error = self.assertRaises(ValueError, parse_address, word, INFERENCE_PORTS)
            self.assertEqual(str(error), f"Invalid binding address: {word}")

    def test_unknown_endpoints(self) -> None:
        """The error for an endpoint of an unknown type has the types that are known, on one line."""
        for word, kind in (
            ("localhost:8080", "localhost"),
            ("TCP:8080", "TCP"),
            ("stdio:", "stdio"),
            ("haproxy:", ""),
            ("haproxy:http://h:80", "http"),
        ):
            said = str(self.assertRaises(ValueError, parse_address, word, INFERENCE_PORTS))
            start = f"Invalid binding address: {word}: {kind!r} is no type of endpoint; there are "
            self.assertEqual(said[: len(start)], start)
            self.assertEqual(len(said.splitlines()), 1)
        for word in ("tcp:80\n", "tcp:80\0", "unix:rel:mode=600", "unix::mode=600"):
            self.assertRaises(ValueError, parse_address, word, INFERENCE_PORTS)

    def test_sockets(self) -> None:
        """A socket's path stays a path, also with a colon in it, unless it has an argument of an endpoint."""
        for word in ("unix:/run/x.sock", "unix:/run/a:b", "unix:/run/a:colour=red", "unix:/run/mode=600"):
            self.assertEqual(parse_address(word, INFERENCE_PORTS), Address("unix", path=word[5:]))
        for argument in ("mode=600", "backlog=9", "lockfile=0"):
            word = f"unix:/run/x.sock:{argument}"
            self.assertEqual(parse_address(word, INFERENCE_PORTS), Address("endpoint", description=word))

    def test_ports(self) -> None:
        """All ports that exist are allowed, the highest as well, and 0 for any free one."""
        for port in (0, 1, 65535):
            self.assertEqual(parse_address(f"http://h:{port}", INFERENCE_PORTS).port, port)
        for digits in ("65536", "9" * 5000):
            error = self.assertRaises(ValueError, parse_address, f"http://h:{digits}", INFERENCE_PORTS)
            self.assertEqual(str(error), f"Invalid port number: http://h:{digits}")


class AddressTests(SynchronousTestCase):
    """Addresses which somebody makes in Python."""

    def test_validates(self) -> None:
        """What could not be listened on is no address."""
        self.assertRaises(ValueError, Address, "ftp", "h", 1)
        self.assertRaises(ValueError, Address, "http", "", 1)
        self.assertRaises(ValueError, Address, "http", "h", 1, "/x")
        self.assertRaises(ValueError, Address, "http", "h", 65536)
        self.assertRaises(ValueError, Address, "http", "h", -1)
        self.assertRaises(ValueError, Address, "unix", "h", 0, "/x")
        self.assertRaises(ValueError, Address, "unix", "", 1, "/x")
        self.assertRaises(ValueError, Address, "unix", "", 0, "x")
        self.assertRaises(ValueError, Address, "http", "h", 1, description="tcp:80")
        self.assertRaises(ValueError, Address, "endpoint")
        self.assertRaises(ValueError, Address, "endpoint", description="tpc:80")
        self.assertRaises(ValueError, Address, "endpoint", description="tcp:80\\")
        self.assertRaises(ValueError, Address, "endpoint", "h", description="tcp:80")
        self.assertRaises(ValueError, Address, "endpoint", "", 1, description="tcp:80")
        self.assertRaises(ValueError, Address, "endpoint", "", 0, "/x", description="tcp:80")


class SameListenerTests(SynchronousTestCase):
    """Whether two addresses are one socket."""

    def same(self, a: str, b: str) -> bool:
        """Compare two texts."""
        return same_listener(parse_address(a, INFERENCE_PORTS), parse_address(b, INFERENCE_PORTS))

    def test_same(self) -> None:
        """The same host and port, or the same path, whatever the scheme and the spelling."""
        self.assertTrue(self.same("http://h:1", "https://H:1"))
        self.assertTrue(self.same("http://localhost:1", "http://127.0.0.1:1"))
        self.assertTrue(self.same("http://[::1]:1", "http://[0::1]:1"))
        self.assertTrue(self.same("unix:/a", "unix:/a"))
        self.assertTrue(self.same("tcp:80", "tcp:80"))
        self.assertTrue(self.same("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"))

    def test_different(self) -> None:
        """Another host, port, path or kind; and every free port is another."""
        self.assertFalse(self.same("http://h:1", "http://h:2"))
        self.assertFalse(self.same("http://h:1", "http://i:1"))
        self.assertFalse(self.same("http://h:0", "http://h:0"))
        self.assertFalse(self.same("unix:/a", "unix:/b"))
        self.assertFalse(self.same("unix:/a", "http://a"))
        self.assertFalse(self.same("tcp:80", "tcp:81"))
        self.assertFalse(self.same("tcp:80", "http://h:80"))
        for any_port in ("tcp:0", "tcp:port=00", "haproxy:tcp:0", "tcp6:0"):
            self.assertFalse(self.same(any_port, any_port))

    @given(addresses, addresses)
    def test_symmetric(self, a: Address, b: Address) -> None:
        """The order does not matter."""
        self.assertEqual(same_listener(a, b), same_listener(b, a))


class LoopbackTests(SynchronousTestCase):
    """Who can reach an address."""

    def test_loopback(self) -> None:
        """Only this machine."""
        for word in ("http://127.0.0.1", "http://127.1.2.3", "http://[::1]", "https://LocalHost", "unix:/s"):
            self.assertTrue(is_loopback(parse_address(word, INFERENCE_PORTS)), word)

    def test_others(self) -> None:
        """Others too, as far as anybody can tell."""
        for word in ("http://0.0.0.0", "http://[::]", "http://10.0.0.1", "http://example.org", "http://localhost.org"):
            self.assertFalse(is_loopback(parse_address(word, INFERENCE_PORTS)), word)

    def test_endpoints(self) -> None:
        """An endpoint is local if its interface or its file says so."""
        for word in (
            "tcp:80:interface=127.0.0.1",
            "tcp:80:127.0.0.1",
            "tcp:80:interface=0.0.0.0:interface=localhost",
            r"tcp6:80:interface=\:\:1",
            "ssl:443:interface=127.0.0.1",
            "unix:/s:mode=600",
        ):
            self.assertTrue(is_loopback(parse_address(word, INFERENCE_PORTS)), word)
        for word in (
            "tcp:80",
            "tcp6:80",
            "tcp:80:interface=",
            "tcp:80:interface=0.0.0.0",
            r"tcp:80:interface\=127.0.0.1",
            "systemd:domain=INET:index=0:interface=127.0.0.1",
            "haproxy:tcp:80:interface=127.0.0.1",
            "haproxy:unix:/s:mode=600",
        ):
            self.assertFalse(is_loopback(parse_address(word, INFERENCE_PORTS)), word)

    @given(lists(sampled_from(ARGUMENTS), max_size=4))
    @example(["80", "127.0.0.1"])
    @example(["80", "interface=127.0.0.1", "interface=0.0.0.0"])
    def test_as_twisted(self, arguments: list[str]) -> None:
        """However an endpoint is written: if it passes for local, Twisted opens it for this machine only."""
        address = parse_address(":".join(("tcp", *arguments, "")), INFERENCE_PORTS)
        try:
            endpoint: Any = serverFromString(MemoryReactorClock(), address.description)
        except (ValueError, TypeError):
            return
        self.assertEqual(is_loopback(address), endpoint._interface == "127.0.0.1")
