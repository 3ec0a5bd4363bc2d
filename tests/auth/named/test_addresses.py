# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.addresses``.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.named.addresses import (
    ADDRESSES_PER_KEY,
    LINES_PER_PERIOD,
    PERIOD,
    FirstUse,
    FirstUses,
    network_of,
)


class FirstUsesTests(SynchronousTestCase):
    """Tests for the first use of a key from an address."""

    def test_once(self) -> None:
        """Each address of each key is reported once."""
        uses = FirstUses(Clock().seconds)
        self.assertEqual(uses.note("a", "192.0.2.1"), FirstUse("192.0.2.1", 0))
        self.assertIsNone(uses.note("a", "192.0.2.1"))
        self.assertEqual(uses.note("b", "192.0.2.1"), FirstUse("192.0.2.1", 0))
        self.assertEqual(uses.note("a", "192.0.2.2"), FirstUse("192.0.2.2", 0))
        self.assertIsNone(uses.note("a", "192.0.2.1"))

    def test_forgotten(self) -> None:
        """A key that is gone leaves nothing, and is new when it is there again."""
        uses = FirstUses(Clock().seconds)
        uses.note("a", "192.0.2.1")
        uses.forget("a")
        uses.forget("a")
        self.assertEqual(len(uses), 0)
        self.assertIsNotNone(uses.note("a", "192.0.2.1"))

    def test_flood(self) -> None:
        """A client with a million addresses gets few lines, then their number, and displaces no other key's."""
        clock = Clock()
        uses = FirstUses(clock.seconds)
        uses.note("quiet", "192.0.2.1")
        reported = [uses.note("loud", f"10.0.{n >> 8}.{n & 255}") for n in range(5000)]
        self.assertEqual(sum(use is not None for use in reported), LINES_PER_PERIOD)
        self.assertEqual(len(uses), 1 + ADDRESSES_PER_KEY)
        self.assertIsNone(uses.note("quiet", "192.0.2.1"))
        clock.advance(PERIOD)
        self.assertEqual(uses.note("loud", "192.0.2.9"), FirstUse("192.0.2.9", 5000 - LINES_PER_PERIOD))

    def test_clock_goes_back(self) -> None:
        """A clock that was set back does not silence a key until it is there again."""
        clock = Clock()
        clock.advance(1e6)
        uses = FirstUses(clock.seconds)
        for n in range(20):
            uses.note("a", f"192.0.2.{n}")
        clock.rightNow = 5.0
        self.assertEqual(uses.note("a", "198.51.100.1"), FirstUse("198.51.100.1", 10))

    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 200)), max_size=200))
    def test_bounded(self, steps: list[tuple[int, int]]) -> None:
        """Memory is bounded, also in total; the address used last is remembered."""
        uses = FirstUses(Clock().seconds, total=20)
        for key, address in steps:
            uses.note(str(key), str(address))
            self.assertIsNone(uses.note(str(key), str(address)))
            self.assertLessEqual(len(uses), 20)
            self.assertEqual(len(uses), sum(len(seen.addresses) for seen in uses._keys.values()))
            self.assertTrue(all(seen.addresses for seen in uses._keys.values()))

    def test_least_recent(self) -> None:
        """Of too many, the address goes that was not used for longest, of the key that was not."""
        uses = FirstUses(Clock().seconds, total=3)
        for key, address in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("c", "1")):
            uses.note(key, address)
        self.assertIsNone(uses.note("a", "1"))
        self.assertIsNone(uses.note("a", "2"))
        self.assertIsNotNone(uses.note("b", "1"))

    def test_networks(self) -> None:
        """An IPv6 client, which has 2 ** 64 addresses, is one; names of sockets stay as they are."""
        uses = FirstUses(Clock().seconds)
        self.assertEqual(uses.note("a", "2001:db8::1"), FirstUse("2001:db8::/64", 0))
        self.assertIsNone(uses.note("a", "2001:db8:0:0:ffff::1"))
        self.assertEqual(uses.note("a", "2001:db8:0:1::1"), FirstUse("2001:db8:0:1::/64", 0))
        self.assertEqual(uses.note("a", "::ffff:192.0.2.1"), FirstUse("192.0.2.1", 0))
        self.assertIsNone(uses.note("a", "192.0.2.1"))
        self.assertEqual(network_of("fe80::1%eth0"), "fe80::/64")
        self.assertEqual(network_of("unix:/run/a"), "unix:/run/a")
