# SPDX-License-Identifier: Apache-2.0
"""
This module implements a worker's process as the server sees it: what it prints, and how it ends; no policy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from signal import SIGKILL, Signals
from typing import Literal, TypeAlias

from attrs import frozen
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from twisted_serve.system.descendants import descendants, kill, kill_group
from twisted_serve.workers.process.output import LineSplitter

#: Where a process prints.
Stream: TypeAlias = Literal["stdout", "stderr"]

#: Seconds that a program which a process has started may hold the output open when that has ended.
OUTPUT_WAIT = 2.0

# What a shell says of a command that was killed with SIGKILL.
_KILLED = 128 + SIGKILL


@frozen
class Exit:
    """
    How a process ended.

    :ivar code: Its exit code, if it exited.
    :ivar signal: The number of the signal that ended it, if one did.
    """

    code: int | None
    signal: int | None

    @property
    def killed(self) -> bool:
        """Whether it was killed with SIGKILL, as the kernel does when memory runs out."""
        return self.signal == SIGKILL or self.code == _KILLED

    def __str__(self) -> str:
        if self.signal is None:
            return f"it exited with code {self.code}"
        try:
            return f"it was ended by {Signals(self.signal).name}"
        except ValueError:
            return f"it was ended by signal {self.signal}"

    @classmethod
    def from_failure(cls, reason: Failure) -> Exit:
        """Read what Twisted says of the end of a process."""
        error = reason.value
        if isinstance(error, (ProcessDone, ProcessTerminated)):
            return cls(error.exitCode, error.signal)
        return cls(None, None)


class WorkerProcess(ProcessProtocol):
    """
    The process of one worker.

    :ivar last_words: The last line that it wrote to stderr.
    :param on_line: Gets each line of output, and the stream that it was written to.
    :param on_exit: Told once when the process has been reaped; something it started may hold its output open still.
    :param on_end: Told once when its output has been closed besides.
    """

    transport: IProcessTransport

    def __init__(
        self,
        on_line: Callable[[Stream, str], None],
        on_exit: Callable[[Exit], None],
        on_end: Callable[[], None],
    ) -> None:
        self.last_words = ""
        self._group: int | None = None
        self._on_line = on_line
        self._on_exit = on_exit
        self._on_end = on_end
        self._out = LineSplitter()
        self._err = LineSplitter()

    def outReceived(self, data: bytes) -> None:
        """See `ProcessProtocol`."""
        for line in self._out.receive(data):
            self._on_line("stdout", line)

    def errReceived(self, data: bytes) -> None:
        """See `ProcessProtocol`."""
        for line in self._err.receive(data):
            self._complain(line)

    def processExited(self, reason: Failure) -> None:
        """See `IProcessProtocol`."""
        if self._group is not None:
            kill_group(self._group)
            self._group = None
        self._on_exit(Exit.from_failure(reason))

    def processEnded(self, reason: Failure) -> None:
        """See `IProcessProtocol`."""
        for line in self._out.end():
            self._on_line("stdout", line)
        for line in self._err.end():
            self._complain(line)
        self._on_end()

    def end_group_of(self, transport: IProcessTransport) -> None:
        """End the process group of a process when the process ends; a process in memory has none."""
        if isinstance(transport, Process):
            self._group = transport.pid

    def kill(self) -> None:
        """Send SIGKILL, if there is still a process to get it."""
        # What it has started can be found as long as it lives.
        started = [] if self._group is None else descendants(self._group)
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
            kill(started)

    def close_output(self) -> None:
        """Read no more of what it, or whatever it started, prints."""
        self.transport.loseConnection()

    def _complain(self, line: str) -> None:
        self.last_words = line.strip() or self.last_words
        self._on_line("stderr", line)
