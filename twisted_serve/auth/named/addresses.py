# SPDX-License-Identifier: Apache-2.0
"""
Recognise the first use of a key from an address, with bounded memory and a bounded number of log lines.

A stolen key is used from elsewhere: the first use from each address is worth a line.  A client with many addresses
must not fill the log or the memory, or make the server forget the addresses of other keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from attrs import frozen

__all__ = ["ADDRESSES", "ADDRESSES_PER_KEY", "LINES_PER_PERIOD", "PERIOD", "FirstUse", "FirstUses", "network_of"]

# How many addresses are remembered of one key, and of all keys; the least recently used are forgotten.
ADDRESSES_PER_KEY: Final = 64
ADDRESSES: Final = 32_768

# How many first uses of one key are reported in each period, in seconds; the rest are counted.
LINES_PER_PERIOD: Final = 10
PERIOD: Final = 60.0


@frozen
class FirstUse:
    """
    A key is used from an address for the first time, as far as is remembered.

    :ivar address: An IPv4 address, or the network of an IPv6 address, whose other half a client chooses freely.
    :ivar unreported: How many first uses of this key were not reported in its last period.
    """

    address: str
    unreported: int


class _Seen:
    """The addresses of one key, the most recently used last, and the first uses of its current period."""

    __slots__ = ("addresses", "began", "found")

    def __init__(self, began: float) -> None:
        self.addresses: OrderedDict[str, None] = OrderedDict()
        self.began = began
        self.found = 0


class FirstUses:
    """
    The addresses from which keys were used.

    :param seconds: The clock's time, as ``IReactorTime.seconds``.
    """

    def __init__(self, seconds: Callable[[], float], total: int = ADDRESSES) -> None:
        self._seconds = seconds
        self._total = total
        self._remembered = 0
        self._keys: OrderedDict[str, _Seen] = OrderedDict()

    def __len__(self) -> int:
        return self._remembered

    def note(self, key: str, address: str) -> FirstUse | None:
        """
        Remember a use, and return it if it is the first and shall be reported.

        :param key: The name or id of the key.
        """
        seen = self._keys.get(key)
        if seen is None:
            seen = self._keys[key] = _Seen(self._seconds())
        else:
            self._keys.move_to_end(key)
        # Most uses are from an address that is known as it is written; only IPv6 has a longer way.
        network = network_of(address) if ":" in address else address
        if network in seen.addresses:
            seen.addresses.move_to_end(network)
            return None
        seen.addresses[network] = None
        self._remembered += 1
        self._forget(seen)
        return self._reported(seen, network)

    def forget(self, key: str) -> None:
        """Forget a key that is gone."""
        seen = self._keys.pop(key, None)
        if seen is not None:
            self._remembered -= len(seen.addresses)

    def _forget(self, seen: _Seen) -> None:
        """Forget what is more than may be remembered: of this key, else of the key that was not used for longest."""
        if len(seen.addresses) > ADDRESSES_PER_KEY:
            seen.addresses.popitem(last=False)
            self._remembered -= 1
        if self._remembered > self._total:
            oldest, idle = next(iter(self._keys.items()))
            idle.addresses.popitem(last=False)
            self._remembered -= 1
            if not idle.addresses:
                del self._keys[oldest]

    def _reported(self, seen: _Seen, network: str) -> FirstUse | None:
        now = self._seconds()
        unreported = 0
        if not 0 <= now - seen.began < PERIOD:
            unreported = max(0, seen.found - LINES_PER_PERIOD)
            seen.began, seen.found = now, 0
        seen.found += 1
        return FirstUse(network, unreported) if seen.found <= LINES_PER_PERIOD else None


def network_of(address: str) -> str:
    """
    Return the network of 64 bits of an IPv6 address, an IPv4 address from within one, or any other text as it is.

    >>> network_of("2001:db8::1:2"), network_of("::ffff:192.0.2.1"), network_of("unix")
    ('2001:db8::/64', '192.0.2.1', 'unix')
    """
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
