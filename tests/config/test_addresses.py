# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.addresses`.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import builds, from_regex, integers, ip_addresses, just, one_of, sampled_from, text
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

addresses = one_of(
    builds(
        Address,
        sampled_from(["http", "https"]),
        one_of(ip_addresses().map(str), from_regex(r"[a-z0-9-]{1,9}(\.[a-z]{2,5})?", fullmatch=True)),
        integers(0, 65535),
    ),
    builds(Address, just("unix"), path=from_regex(r"/[a-z./ ]{1,90}", fullmatch=True)),
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

    def test_different(self) -> None:
        """Another host, port, path or kind; and every free port is another."""
        self.assertFalse(self.same("http://h:1", "http://h:2"))
        self.assertFalse(self.same("http://h:1", "http://i:1"))
        self.assertFalse(self.same("http://h:0", "http://h:0"))
        self.assertFalse(self.same("unix:/a", "unix:/b"))
        self.assertFalse(self.same("unix:/a", "http://a"))

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
