# SPDX-License-Identifier: Apache-2.0
"""
Buffer the metrics of a batch and send them with its response.

Printing a metric costs a write in the worker and an event in the server; sending it with the
response costs almost nothing. But a buffered value arrives late, and is lost if the worker is
killed. So values are buffered only while responses are fast: if the values of the previous
batch waited less than ``LONGEST_WAIT`` and those of this batch have not waited longer yet.
All others are printed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from time import perf_counter

from msgspec.structs import astuple

from twisted_serve.handlers.metrics import print_metrics
from twisted_serve.wire.messages import Reading
from twisted_serve.wire.metric_lines import METRIC_MARK, metric_line

# Seconds. For slower responses the cost of printing is negligible.
LONGEST_WAIT = 0.05
# The limits of the buffer: values, and characters of each. A frame may exceed its bodies' size by 1 MiB.
MOST_VALUES = 64
LONGEST_TEXT = 2560

# The wire encoding supports neither larger integers nor subclasses of ``str``.
_BEYOND = 1 << 63

# The number of forks between the first process and this one.
_forks = 0


def _has_forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_has_forked)


class Patience:
    """
    The state shared by the batches of a worker.

    :ivar lasts: True if values may be buffered: not before the first batch, whose duration is unknown.
    """

    def __init__(self) -> None:
        self.lasts = False


class Gathering:
    """
    The buffered metrics of one batch.

    Any thread of the handler may add values at any time. There is no lock, which a signal handler or a forked child
    could find held: a deque is thread-safe enough.

    :param write: A function that prints lines.
    :param now: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        patience: Patience,
        write: Callable[[str], object] = print_metrics,
        now: Callable[[], float] = perf_counter,
    ) -> None:
        self._patience = patience
        self._write = write
        self._now = now
        self._waiting: deque[Reading] = deque()
        # The time of the first value since the last `take`, buffered or printed.
        self._since: float | None = None
        self._ended = False
        self._forks = _forks

    def keep(
        self, name: str, unit: str, value: object, labels: str, kind: str, host: str, time: int, request_ids: str
    ) -> bool:
        """Buffer a value (see `Keep`); before returning false, print the values buffered so far."""
        now = self._now()
        since = self._since
        if since is None:
            since = self._since = now
        if (
            self._patience.lasts
            and self._forks == _forks
            and now - since < LONGEST_WAIT
            and len(self._waiting) < MOST_VALUES
            and (type(value) is float or type(value) is int)
            and abs(value) < _BEYOND
            and _is_plain(name, unit, labels, request_ids)
        ):
            self._waiting.append(Reading(name, unit, value, labels, kind, host, time, request_ids))
            if self._ended:
                # There will be no response to take it.
                self.flush()
            return True
        self.flush()
        return False

    def take(self) -> list[Reading]:
        """Return the buffered values and empty the buffer."""
        since, self._since = self._since, None
        if since is not None:
            self._patience.lasts = self._now() - since < LONGEST_WAIT
        taken: list[Reading] = []
        try:
            while self._waiting:
                taken.append(self._waiting.popleft())
        except IndexError:
            # Another thread has emptied the buffer.
            return taken
        return taken

    def flush(self) -> None:
        """Print the buffered values."""
        if self._forks != _forks:
            # This process was forked by the handler; the parent sends the response and its values.
            self._waiting.clear()
        elif self._waiting:
            self._write("".join(f"{METRIC_MARK}{metric_line(*astuple(each))}\n" for each in self.take()))

    def end(self) -> None:
        """Stop buffering, and print the buffered values."""
        self._ended = True
        self.flush()


def _is_plain(name: str, unit: str, labels: str, request_ids: str) -> bool:
    """Return whether the texts can be sent unchanged, and printed on one line within the length limit."""
    if not type(name) is type(unit) is type(labels) is type(request_ids) is str:
        return False
    text = name + unit + labels + request_ids
    return len(text) <= LONGEST_TEXT and text.isprintable()
