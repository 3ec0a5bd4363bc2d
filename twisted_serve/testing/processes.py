# SPDX-License-Identifier: Apache-2.0
"""
Fake processes that end when the test says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

#: The process id of every fake process; no real process has it.
NO_PID = 1 << 30


class MemoryProcess:
    """
    A process that does nothing until the test ends it.

    :ivar words: Its command line.
    :ivar environment: Its environment.
    :ivar path: Its working directory.
    :ivar signals: The names of the signals sent to it, which it ignores.
    :ivar holds_output: Whether a child of it holds its output open.
    """

    def __init__(self, process: ProcessProtocol, words: list[str], environment: Mapping[str, str], path: str) -> None:
        self.process, self.words, self.environment, self.path = process, words, environment, path
        self.pid: int | None = NO_PID
        self.signals: list[str] = []
        self.holds_output = False
        self._reason: Failure | None = None

    def signalProcess(self, name: str) -> None:
        """
        Record a signal.

        :raise ProcessExitedAlready: if the process has ended.
        """
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(name)

    def loseConnection(self) -> None:
        """Close the output, even if a child holds it open."""
        self.holds_output = False
        self._close()

    def end(self, code: int | None = 0, number: int | None = None) -> None:
        """End with an exit code or by a signal."""
        self.pid = None
        self._reason = Failure(ProcessDone(0) if code == 0 else ProcessTerminated(code, number, 0))
        self.process.processExited(self._reason)
        self._close()

    def _close(self) -> None:
        if self._reason is not None and not self.holds_output:
            reason, self._reason = self._reason, None
            self.process.processEnded(reason)


class ProcessReactor(Clock):
    """
    A clock that can spawn fake processes.

    :ivar children: All processes spawned.
    :ivar refuses: Whether spawning fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.children: list[MemoryProcess] = []
        self.refuses = False

    def spawnProcess(
        self,
        process: ProcessProtocol,
        executable: str,
        args: list[str],
        env: Mapping[str, str],
        path: str,
        childFDs: Mapping[int, int | str],
    ) -> MemoryProcess:
        """
        Create a fake process.

        :raise OSError: if spawning is set to fail, or a descriptor is not open.
        """
        if self.refuses:
            raise OSError("no more processes")
        for descriptor in childFDs.values():
            if isinstance(descriptor, int):
                # Raises if the descriptor is not open.
                os.fstat(descriptor)
        self.children.append(MemoryProcess(process, [executable, *args[1:]], env, path))
        process.makeConnection(self.children[-1])
        return self.children[-1]
