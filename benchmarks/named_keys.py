# SPDX-License-Identifier: Apache-2.0
"""
Measure named keys: the gate's check of a request, the load of a store, and a change of it.

Run it with ``python -m benchmarks.named_keys``.  Checks are measured in turns, so that what else the machine does hits
all alike; the fastest of the rounds counts.  The store is in TMPDIR: the time of its disk comes on top.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from threading import Thread

from attrs import evolve, frozen

from benchmarks.tables import table
from twisted_serve.auth.gate import Allowed, Authorizer
from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.live import NamedKeys
from twisted_serve.auth.named.records import NamedKey
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.named.secrets import fresh_secret
from twisted_serve.auth.named.store import KeyStore
from twisted_serve.auth.needs import Need
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.interfaces import Operation

KEYS = 10_000
ROUNDS = 15
CHECKS = 10_000
CHANGES = 9

_NEED = Need(Operation.PREDICT, TokenKind.INFERENCE, "resnet")
_TARGET = Target(("predictions", "resnet"))
_SCOPES = (("inference",), ("inference:resnet*", "models:read"))


def now() -> datetime:
    """Return the time."""
    return datetime.now(timezone.utc)


@frozen
class Consumers:
    """
    Keys and their secrets.

    :ivar headers: The ``Authorization`` header of each.
    """

    records: Sequence[NamedKey]
    headers: Sequence[bytes]

    @classmethod
    def make(cls, number: int) -> Consumers:
        """Make so many keys."""
        texts = [fresh_secret(secrets.token_bytes).encode() for _ in range(number)]
        records = [
            NamedKey(
                f"consumer-{n}",
                sha256(text).hexdigest(),
                KeyScopes(_SCOPES[n % 2]),
                now(),
                now() + timedelta(days=30),
                rate=600,
            )
            for n, text in enumerate(texts)
        ]
        return cls(records, [b"Bearer " + text for text in texts])


def gate(keyring: Keyring, records: Sequence[NamedKey] | None) -> Authorizer:
    """Return a gate with these named keys, or without."""
    named = None
    if records is not None:
        named = NamedKeys(time.monotonic)
        named.use(named.indexed(records))
    return Authorizer(lambda method, target: _NEED, keyring, now, named)


def checking(asked: Authorizer, headers: Sequence[bytes]) -> float:
    """Return the processor microseconds of a check, with each header in turn."""
    # Each request has bytes of its own.
    requests = [[bytes(bytearray(header))] for header in list(headers) * (CHECKS // len(headers))]
    begun = time.process_time()
    for request in requests:
        answer = asked.ask(b"POST", _TARGET, request)
    seconds = time.process_time() - begun
    assert isinstance(answer, Allowed), answer
    return seconds / len(requests) * 1e6


def checks(consumers: Consumers) -> list[list[str]]:
    """Measure the gate's check."""
    keyring = Keyring.create(lambda keys: None, secrets.token_bytes, timedelta(hours=1), now(), time.monotonic)
    usual = [b"Bearer " + keyring.keys.inference.encoded]
    one, many = consumers.headers[:1], consumers.headers
    few, all_keys = gate(keyring, consumers.records[:1]), gate(keyring, consumers.records)
    cases: list[tuple[str, Callable[[], float]]] = [
        ("one of the three keys, no store", lambda: checking(gate(keyring, None), usual)),
        (f"one of the three keys, {KEYS} named keys", lambda: checking(all_keys, usual)),
        ("a named key, the only one", lambda: checking(few, one)),
        (f"a named key, one of {KEYS}", lambda: checking(all_keys, one)),
        (f"{KEYS} named keys, each in turn", lambda: checking(all_keys, many)),
    ]
    best = dict.fromkeys((title for title, _ in cases), float("inf"))
    for _ in range(ROUNDS):
        for title, measure in cases:
            best[title] = min(best[title], measure())
    return [[f"check: {title}, µs", f"{best[title]:.2f}"] for title in best]


def milliseconds(call: Callable[[], object]) -> tuple[float, float]:
    """Return the milliseconds of a call in a thread, and those of the processor."""
    measured: list[float] = []

    def run() -> None:
        begun, of_processor = time.perf_counter(), time.thread_time()
        call()
        measured.extend(((time.perf_counter() - begun) * 1e3, (time.thread_time() - of_processor) * 1e3))

    thread = Thread(target=run)
    thread.start()
    thread.join()
    return measured[0], measured[1]


def row(title: str, measured: Sequence[tuple[float, float]]) -> list[str]:
    """Return the best of measurements as a row."""
    return [
        f"{title}, ms (processor)",
        f"{min(each[0] for each in measured):.1f} ({min(each[1] for each in measured):.1f})",
    ]


def store_rows(consumers: Consumers) -> list[list[str]]:
    """Measure the start with a store, a change of it, and the reload in another server."""
    loads, changes, reloads = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "keys.json")
        KeyStore(path).transaction(lambda records: KeyRecords(consumers.records))
        for _ in range(CHANGES):
            ours, other = Server(path), Server(path)
            loads.append(milliseconds(ours.load))
            other.load()
            changes.append(milliseconds(ours.change))
            reloads.append(milliseconds(other.load))
    return [
        row(f"load of {KEYS} keys", loads),
        row(f"a change of one of {KEYS} keys", changes),
        row("reload in another server after it", reloads),
    ]


class Server:
    """The part of a server that has the named keys."""

    def __init__(self, path: Path) -> None:
        self.store = KeyStore(path)
        self.named = NamedKeys(time.monotonic)

    def load(self) -> None:
        """Read the file, and use its keys."""
        self.named.use(self.named.indexed(self.store.load()))

    def change(self) -> None:
        """Change a key, and use the keys."""
        self.named.use(self.named.indexed(self.store.transaction(_switching)))


def _switching(records: KeyRecords) -> KeyRecords:
    """Disable a key, or enable it."""
    record = records.of("consumer-77")
    return records.replacing(evolve(record, disabled=not record.disabled))


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description="Measure named keys.").parse_args()
    consumers = Consumers.make(KEYS)
    sys.stdout.write(table(["what", "measured"], [*checks(consumers), *store_rows(consumers)]))


if __name__ == "__main__":
    main()
