# SPDX-License-Identifier: Apache-2.0
"""
Watch the output and the exit of a worker process; no policy.
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

#: The stream that a line was printed to.
Stream: TypeAlias = Literal["stdout", "stderr"]

#: Seconds that descendants of an exited process may hold its output open.
OUTPUT_WAIT = 2.0

# The exit code that a shell returns for a command that was killed with SIGKILL.
_KILLED = 128 + SIGKILL


@frozen
class Exit:
    """
    The exit status of a process.

    :ivar code: The exit code; ``None`` if a signal ended the process.
    :ivar signal: The number of the signal; ``None`` if the process exited by itself.
    """

    code: int | None
    signal: int | None

    @property
    def killed(self) -> bool:
        """Whether the process was killed with SIGKILL, as the kernel does when memory runs out."""
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
        """Return the exit status that a ``processExited`` failure carries."""
        error = reason.value
        if isinstance(error, (ProcessDone, ProcessTerminated)):
            return cls(error.exitCode, error.signal)
        return cls(None, None)


class WorkerProcess(ProcessProtocol):
    """
    The process of one worker.

    :ivar last_error_line: The last line that the process wrote to stderr.
    :param on_line: Called with the stream and the text of each line of output.
    :param on_exit: Called once when the process has been reaped; its descendants may still hold its output open.
    :param on_end: Called once when the process has been reaped and its output is closed.
    """

    transport: IProcessTransport

    def __init__(
        self,
        on_line: Callable[[Stream, str], None],
        on_exit: Callable[[Exit], None],
        on_end: Callable[[], None],
    ) -> None:
        self.last_error_line = ""
        self._group: int | None = None
        self._on_line = on_line
        self._on_exit = on_exit
        self._on_end = on_end
        self._out = LineSplitter()
        self._err = LineSplitter()

    def outReceived(self, data: bytes) -> None:
        """Pass on the complete lines of stdout."""
        for line in self._out.receive(data):
            self._on_line("stdout", line)

    def errReceived(self, data: bytes) -> None:
        """Pass on the complete lines of stderr and remember the last."""
        for line in self._err.receive(data):
            self._error_line(line)

    def processExited(self, reason: Failure) -> None:
        """Kill what is left of the process' group and report the exit."""
        if self._group is not None:
            kill_group(self._group)
            self._group = None
        self._on_exit(Exit.from_failure(reason))

    def processEnded(self, reason: Failure) -> None:
        """Pass on unfinished lines and report the end of the output."""
        for line in self._out.end():
            self._on_line("stdout", line)
        for line in self._err.end():
            self._error_line(line)
        self._on_end()

    def end_group_of(self, transport: IProcessTransport) -> None:
        """Kill the process' group when the process exits; an in-memory process (a fake) has no group."""
        if isinstance(transport, Process):
            self._group = transport.pid

    def kill(self) -> None:
        """Send SIGKILL to the process, if it is alive, and to its descendants."""
        # Descendants can only be found while the process is alive.
        started = [] if self._group is None else descendants(self._group)
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
            kill(started)

    def close_output(self) -> None:
        """Stop reading the output of the process and of its descendants."""
        self.transport.loseConnection()

    def _error_line(self, line: str) -> None:
        self.last_error_line = line.strip() or self.last_error_line
        self._on_line("stderr", line)
