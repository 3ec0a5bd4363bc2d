# SPDX-License-Identifier: Apache-2.0
"""
Count the requests of named keys, with a bounded number of series.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry

from twisted_serve.metrics.families import CounterFamily, CounterValue

__all__ = ["MOST_KEYS", "OTHER", "KeyRequests"]

#: How many keys have series: those that are used first. The requests of all others are counted together.
MOST_KEYS: Final = 300

#: The label of the others; no key can have this name.
OTHER: Final = "(other)"


class KeyRequests:
    """The requests of named keys, by name and outcome."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._family = CounterFamily(registry, "ts_key_requests", "Requests with named keys.", ["key", "outcome"])
        self._by_key: dict[str, dict[str, CounterValue]] = {}

    def count(self, key: str, outcome: str) -> None:
        """
        Count a request.

        :param outcome: ``admitted``, or why it was refused: one of a few words.
        """
        found = self._by_key.get(key)
        if found is None:
            if len(self._by_key) >= MOST_KEYS:
                self._family.labels(OTHER, outcome).inc()
                return
            found = self._by_key[key] = {}
        counter = found.get(outcome)
        if counter is None:
            counter = found[outcome] = self._family.labels(key, outcome)
        counter.inc()

    def forget(self, keys: Iterable[str]) -> None:
        """Remove the series of keys that are gone, so that others can have some."""
        for key in keys:
            for outcome in self._by_key.pop(key, ()):
                self._family.remove(key, outcome)
