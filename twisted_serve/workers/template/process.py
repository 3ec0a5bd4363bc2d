# SPDX-License-Identifier: Apache-2.0
"""
Represent a worker process that is a child of a template, which reports its exit.

`ForkedProcess` implements the part of Twisted's process transport that a worker uses.
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
from twisted_serve.workers.process.connection import AdoptedFactory
from twisted_serve.workers.process.launch import Launch

# The wait status of a process whose template has ended: the kernel kills it.
ORPHANED = int(signal.SIGKILL)


class Forking(Protocol):
    """The template of a process."""

    def signal(self, number: int, signum: int) -> None:
        """Send a signal to a process of the template, if the process is still alive."""

    def unregister(self, process: ForkedProcess) -> None:
        """Unregister a process; its events are no longer delivered."""


class ForkedProcess:
    """
    A child process of a template.

    :ivar number: The number that identifies the process to its template.
    :ivar launch: The worker that it was forked for.
    :ivar template: The parent of the process.
    :ivar undecided: Whether it is still unknown if this process is the worker or the worker's template; until that is
        known its exit is not reported.
    :ivar descriptors: The process' ends of its socket, stdout and stderr, open here until it has inherited them.
    """

    def __init__(self, reactor: IServeReactor, number: int, launch: Launch, template: Forking) -> None:
        """
        Open the socket pair and the pipes, and connect the server's ends.

        :raise OSError: if the server has run out of descriptors; none is left open.
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
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, AdoptedFactory(launch.worker.connection))
            stack.pop_all()
        ours.close()
        self.descriptors = [theirs.detach(), pipes["stdout"][1], pipes["stderr"][1]]
        launch.worker.process.makeConnection(self)
        for name, (reading, _) in pipes.items():
            self._readers[name] = ProcessReader(reactor, self, name, reading)

    def forked(self, pid: int) -> None:
        """Handle that the process exists and has inherited its descriptors, or that another has taken them over."""
        self.close_descriptors()
        self.launch.worker.forked(pid)

    def fork_failed(self, reason: str) -> None:
        """Handle that the fork failed."""
        self.close_descriptors()
        worker = self.launch.worker
        worker.message_received(LoadFailed(500, f"The worker's process could not be started: {reason}"))
        self.exited(ORPHANED)

    def exited(self, status: int) -> None:
        """Handle that the process has been reaped with this status of ``waitpid``."""
        if self._status is not None:
            return
        self._status = status
        if not self.undecided:
            self._report_exit()

    def decided(self) -> None:
        """Handle that this process is the worker itself; report its exit if it has exited."""
        self.undecided = False
        if self._status is not None:
            self._report_exit()

    def taken_over(self, pid: int, template: Forking) -> None:
        """Handle that the process has become a template and its child ``pid`` continues as the worker."""
        self.undecided = False
        # A recorded exit is that of the template, which its child does not outlive.
        self._status = None
        self.template.unregister(self)
        self.template = template
        self.forked(pid)

    def signalProcess(self, name: Literal["KILL"]) -> None:
        """
        Have the template send a signal to the process; see `IProcessTransport`.

        :raise ProcessExitedAlready: if the process has been reaped.
        """
        if self._status is not None:
            raise ProcessExitedAlready()
        self.template.signal(self.number, signal.Signals[f"SIG{name}"])

    def loseConnection(self) -> None:
        """Stop reading the output; see `IProcessTransport`."""
        for reader in list(self._readers.values()):
            reader.loseConnection()

    def childDataReceived(self, name: str, data: bytes) -> None:
        """Pass output to the worker."""
        process = self.launch.worker.process
        if name == "stdout":
            process.outReceived(data)
        else:
            process.errReceived(data)

    def childConnectionLost(self, name: str, reason: Failure) -> None:
        """Handle the end of one output stream."""
        os.close(self._readers.pop(name).fileno())
        self._check_ended()

    def close_descriptors(self) -> None:
        """Close the server's copies of the process' descriptors."""
        descriptors, self.descriptors = self.descriptors, []
        for descriptor in descriptors:
            os.close(descriptor)

    def _report_exit(self) -> None:
        self.close_descriptors()
        self.launch.worker.process.processExited(self._reason())
        self._check_ended()

    def _check_ended(self) -> None:
        if self._status is not None and not self.undecided and not self._readers:
            self.launch.worker.process.processEnded(self._reason())

    def _reason(self) -> Failure:
        status = self._status
        assert status is not None  # noqa: S101 - it has exited
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return Failure(ProcessDone(status))
        return Failure(ProcessTerminated(code if code > 0 else None, -code if code < 0 else None, status))
