# SPDX-License-Identifier: Apache-2.0
"""
This module implements where the metrics of a batch wait for the answer, which they travel with.

To print a metric costs a write here and an event in the server; beside an answer it
costs next to nothing.  But what waits comes late, and never if the worker is killed
meanwhile.  So values wait only where answers come soon: as long as those of the last
batch have not had to wait for long, and those of this one have not yet.  All others
are printed.
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

# Seconds.  Where answers take longer, nobody notices what printing costs.
LONGEST_WAIT = 0.05
# So many values wait, each with so many characters: with a frame's bodies a megabyte of other things is believed.
MOST_VALUES = 64
LONGEST_TEXT = 2560

# The wire knows neither larger integers nor subclasses of ``str``.
_BEYOND = 1 << 63

# How often this process has come out of a fork.
_forks = 0


def _has_forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_has_forked)


class Patience:
    """
    What the batches of a worker have in common.

    :ivar lasts: Whether values may wait; not before a batch has shown how long that is.
    """

    def __init__(self) -> None:
        self.lasts = False


class Gathering:
    """
    What has been emitted for one batch and has not left yet.

    Any thread of the handler may add to it, at any time.  There is no lock, which a signal handler or a fork could
    find taken: a deque is enough.

    :param write: Prints lines.
    :param now: Seconds of a clock that only goes forward.
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
        # When the first value was emitted since some left, whether it waits or was printed.
        self._since: float | None = None
        self._ended = False
        self._forks = _forks

    def keep(
        self, name: str, unit: str, value: object, labels: str, kind: str, host: str, time: int, request_ids: str
    ) -> bool:
        """See `Keep`; if this one is to be printed, those before it are by then."""
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
                # Nobody will take it.
                self.flush()
            return True
        self.flush()
        return False

    def take(self) -> list[Reading]:
        """Give away what waits: it leaves now."""
        since, self._since = self._since, None
        if since is not None:
            self._patience.lasts = self._now() - since < LONGEST_WAIT
        taken: list[Reading] = []
        try:
            while self._waiting:
                taken.append(self._waiting.popleft())
        except IndexError:
            # Another thread has been quicker.
            return taken
        return taken

    def flush(self) -> None:
        """Print what waits."""
        if self._forks != _forks:
            # The handler has forked us; the process that it runs in answers, and lets its values go.
            self._waiting.clear()
        elif self._waiting:
            self._write("".join(f"{METRIC_MARK}{metric_line(*astuple(each))}\n" for each in self.take()))

    def end(self) -> None:
        """Keep nothing any more."""
        self._ended = True
        self.flush()


def _is_plain(name: str, unit: str, labels: str, request_ids: str) -> bool:
    """Whether these can be sent as they are, and printed on one line that is not too long."""
    if not type(name) is type(unit) is type(labels) is type(request_ids) is str:
        return False
    text = name + unit + labels + request_ids
    return len(text) <= LONGEST_TEXT and text.isprintable()
