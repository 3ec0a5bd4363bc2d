# SPDX-License-Identifier: Apache-2.0
"""
Measure the testing kit: how long a server in memory takes to start, virtual time to pass, and planted bugs to be found.

Run it with ``python -m benchmarks.testing_kit``; ``--bugs`` finds the planted bugs of the tests, too.  Times are
processor times; those of the disk come on top, unless TMPDIR is in memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.tables import table
from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.server import MemoryServer

STARTS = 200
MINUTES = 1_000_000

# In minutes: when clients ask in each hour.
RHYTHM = (10, 20, 20, 10)


def timed(call: Callable[[], object]) -> float:
    """Return the processor seconds of a call."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def starts() -> Iterator[list[str]]:
    """Measure the start of servers, the first and later ones."""
    servers: list[MemoryServer] = []
    for title, number in (("start, the first of a process, ms", 1), ("start, later ones, median, ms", STARTS)):
        times = []
        for _ in range(number):
            times.append(timed(lambda: servers.append(MemoryServer())))
            servers.pop().close()
        yield [title, f"{statistics.median(times) * 1e3:.1f}"]


def pass_hours(hours: int) -> int:
    """
    Let hours pass in which clients ask four times, find their key expired once, and replace it.

    :return: The number of replaced keys.
    """
    replaced = 0
    with MemoryServer({"token_expiration_min": 60}) as server:
        key = server.keys.inference.secret
        for _ in range(hours):
            for minutes in RHYTHM:
                server.advance(60 * minutes)
                if not server.opens(key):
                    key = server.rotate()
                    replaced += 1
    return replaced


def bugs() -> Iterator[list[str]]:
    """Find the planted bugs, each without looking for the smallest example."""
    from tests.testing.planted.table import PLANTED  # It is only there in a checkout.

    for bug in PLANTED:
        begun = time.process_time()
        with bug.plant():
            found = machine_fails()
        seconds = time.process_time() - begun
        yield [bug.name, f"{seconds:.1f}" if found else "not found"]


def machine_fails() -> bool:
    """Return whether the machine finds a failure."""
    quick = settings(
        max_examples=100,
        stateful_step_count=15,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
    )
    try:
        run_state_machine_as_test(TokenMachine, settings=quick)
    except AssertionError:
        return True
    return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the testing kit.")
    parser.add_argument("--minutes", type=int, default=MINUTES, help="virtual minutes (default: %(default)s)")
    parser.add_argument("--bugs", action="store_true", help="find the planted bugs, too")
    options = parser.parse_args()
    rows = list(starts())
    replaced: list[int] = []
    seconds = timed(lambda: replaced.append(pass_hours(options.minutes // 60)))
    rows.append([f"{options.minutes} virtual minutes with {replaced[0]} rotations, s", f"{seconds:.1f}"])
    sys.stdout.write(table(["what", "measured"], rows))
    if options.bugs:
        sys.stdout.write("\n" + table(["planted bug", "measured, s"], list(bugs())))


if __name__ == "__main__":
    main()
