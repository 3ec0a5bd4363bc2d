# SPDX-License-Identifier: Apache-2.0
"""
This module implements a worker's process that is not our child: a template forked it, and tells us how it ends.

To the worker it is what a process of Twisted's is, as far as it cares.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from typing import Literal, Protocol

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.process import ProcessReader
from twisted.python.failure import Failure

from twisted_serve.interfaces import IServeReactor
from twisted_serve.wire.messages import LoadFailed
from twisted_serve.workers.process.connection import Adopted
from twisted_serve.workers.process.launch import Launch

# How a process ends whose template has ended: the kernel sees to it.
ORPHANED = int(signal.SIGKILL)


class Forking(Protocol):
    """The template of a process."""

    def signal(self, number: int, signum: int) -> None:
        """Send a signal to one of its processes, if that is still there."""

    def disown(self, process: ForkedProcess) -> None:
        """Hear no more of a process."""


class ForkedProcess:
    """
    A process of some template.

    :ivar number: What its template calls it.
    :ivar launch: What it was forked for.
    :ivar template: Whose child it is.
    :ivar undecided: While true nobody knows whether this is the worker, or what forked it: its exit is kept back.
    :ivar ends: Its ends, which are open here until there is a process that has them.
    """

    def __init__(self, reactor: IServeReactor, number: int, launch: Launch, template: Forking) -> None:
        """
        Make the ends.

        :raise OSError: if there are no more descriptors; none is left open.
        """
        self.number = number
        self.launch = launch
        self.template = template
        self.undecided = False
        self._reactor = reactor
        self._status: int | None = None
        self._readers: dict[str, ProcessReader] = {}
        with ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.enter_context(ours)
            stack.callback(theirs.close)
            pipes = {}
            for name in ("stdout", "stderr"):
                pipes[name] = os.pipe()
                for descriptor in pipes[name]:
                    stack.callback(os.close, descriptor)
            ours.setblocking(False)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Adopted(launch.worker.connection))
            stack.pop_all()
        ours.close()
        self.ends = [theirs.detach(), pipes["stdout"][1], pipes["stderr"][1]]
        launch.worker.process.makeConnection(self)
        for name, (reading, _) in pipes.items():
            self._readers[name] = ProcessReader(reactor, self, name, reading)

    def born(self, pid: int) -> None:
        """There is a process, with its ends; or another one has taken them over."""
        self.close_ends()
        self.launch.worker.born(pid)

    def unborn(self, reason: str) -> None:
        """There is none, and will not be."""
        self.close_ends()
        worker = self.launch.worker
        worker.message_received(LoadFailed(500, f"The worker's process could not be started: {reason}"))
        self.exited(ORPHANED)

    def exited(self, status: int) -> None:
        """The process has been reaped, with what ``waitpid`` said."""
        if self._status is not None:
            return
        self._status = status
        if not self.undecided:
            self._told()

    def decided(self) -> None:
        """This is the worker's process, and goes on to be."""
        self.undecided = False
        if self._status is not None:
            self._told()

    def inherited(self, pid: int, template: Forking) -> None:
        """Another process, a child of the one that there was, goes on as the worker."""
        self.undecided = False
        # What is known of the exit is about its template, which that one does not outlive.
        self._status = None
        self.template.disown(self)
        self.template = template
        self.born(pid)

    def signalProcess(self, name: Literal["KILL"]) -> None:
        """See `IProcessTransport`."""
        if self._status is not None:
            raise ProcessExitedAlready()
        self.template.signal(self.number, signal.Signals[f"SIG{name}"])

    def loseConnection(self) -> None:
        """See `IProcessTransport`."""
        for reader in list(self._readers.values()):
            reader.loseConnection()

    def childDataReceived(self, name: str, data: bytes) -> None:
        """It has printed something."""
        process = self.launch.worker.process
        if name == "stdout":
            process.outReceived(data)
        else:
            process.errReceived(data)

    def childConnectionLost(self, name: str, reason: Failure) -> None:
        """It will print no more there."""
        os.close(self._readers.pop(name).fileno())
        self._see_if_ended()

    def close_ends(self) -> None:
        """Leave its ends to it."""
        ends, self.ends = self.ends, []
        for descriptor in ends:
            os.close(descriptor)

    def _told(self) -> None:
        self.close_ends()
        self.launch.worker.process.processExited(self._reason())
        self._see_if_ended()

    def _see_if_ended(self) -> None:
        if self._status is not None and not self.undecided and not self._readers:
            self.launch.worker.process.processEnded(self._reason())

    def _reason(self) -> Failure:
        status = self._status
        assert status is not None  # noqa: S101 - it has exited
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return Failure(ProcessDone(status))
        return Failure(ProcessTerminated(code if code > 0 else None, -code if code < 0 else None, status))
