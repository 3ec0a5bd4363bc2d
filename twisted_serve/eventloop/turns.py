# SPDX-License-Identifier: Apache-2.0
"""
Measure the iterations (turns) of a reactor, and log those that took too much CPU time.

While a turn runs, every other client waits.  CPU time is measured, not wall time: on a busy machine a short turn may
take long.  A second thread samples the stack of a turn that is already long, so that the log shows the running code;
code that does not release the GIL (one long call into C, for example) is sampled at its end.

This is for tests and debugging: it costs some microseconds per turn.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

from twisted.application.service import Service
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger("twisted_serve.eventloop")

#: The start of the log line; tests look for it.
SLOW_TURN = "A turn of the reactor took"

# The sampling interval in seconds.
_SAMPLING_INTERVAL = 0.005

# The number of innermost frames that are logged.
_FRAMES = 12


class TurnWatch(Service):
    """
    Watch the turns of a reactor, from the end of the start on.

    :param limit: The CPU time in seconds that a turn may take.
    :param now: Returns, in any thread, the CPU time in seconds that the reactor's thread has used; by default this is
        read of the thread that starts this service.
    """

    def __init__(self, reactor: IReactorTime, limit: float, now: Callable[[], float] | None = None) -> None:
        self._reactor = reactor
        self._limit = limit
        self._given_now = now
        self._now = now or time.thread_time
        self._armed = False
        self._arming = False
        self._began = 0.0
        self._seen: list[traceback.FrameSummary] | None = None
        self._ended = threading.Event()

    def startService(self) -> None:
        """Start measuring; must be called in the reactor's thread."""
        super().startService()
        if not isinstance(self._reactor, ReactorBase):
            return
        run = self._reactor.runUntilCurrent

        def run_until_current() -> None:
            # Twisted's loop calls this once in each turn; waiting for events takes no CPU time.
            self._turn_ended()
            run()

        self._reactor.runUntilCurrent = run_until_current  # type: ignore[method-assign]
        self._ended.clear()
        thread = threading.get_ident()
        threading.Thread(target=self._sample, args=(thread,), name="turns", daemon=True).start()

    def arm(self) -> None:
        """Log long turns from the next one on, after imports and the loading of models."""
        self._arming = True

    def stopService(self) -> None:
        """Stop measuring."""
        super().stopService()
        self._armed = self._arming = False
        self._ended.set()
        # Restores the method of the class.
        self._reactor.__dict__.pop("runUntilCurrent", None)

    def _turn_ended(self) -> None:
        now = self._now()
        spent, seen, self._seen, self._began = now - self._began, self._seen, None, now
        if self._arming:
            # This was the turn of the start, in which the command collects garbage.
            self._arming, self._armed = False, True
            return
        if self._armed and spent > self._limit:
            _log.error(
                "{slow} {spent:.0f} ms of processor time, more than {limit:.0f} ms. What ran:\n{stack}",
                slow=SLOW_TURN,
                spent=spent * 1000,
                limit=self._limit * 1000,
                stack="".join(traceback.format_list(seen)) if seen else "(not seen)",
            )
            # Exclude the time of the logging itself.
            self._began = self._now()

    def _sample(self, thread: int) -> None:
        now = self._given_now or _cpu_time_of(thread)
        while not self._ended.wait(_SAMPLING_INTERVAL):
            try:
                spent = now() - self._began
            except OSError:
                # The thread has ended.
                return
            if self._armed and self._seen is None and spent > self._limit / 2:
                self._seen = _stack_of(sys._current_frames().get(thread))


def _cpu_time_of(thread: int) -> Callable[[], float]:
    """Return a function that returns the CPU time in seconds that a thread has used; it raises when it has ended."""
    clock = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime(clock)


def _stack_of(frame: FrameType | None) -> list[traceback.FrameSummary]:
    """Return the innermost frames; their source lines are read later, when the frames are logged."""
    frames = traceback.walk_stack(frame) if frame is not None else iter(())
    return traceback.StackSummary.extract(frames, limit=_FRAMES, lookup_lines=False)[::-1]
