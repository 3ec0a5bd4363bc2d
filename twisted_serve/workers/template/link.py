# SPDX-License-Identifier: Apache-2.0
"""
Ask a template process for forks and track its children over the control socket.
"""

from __future__ import annotations

import os
from signal import SIGKILL
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport, IUNIXTransport

from twisted_serve.wire.codec import encode
from twisted_serve.wire.control import (
    Alone,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    FromTemplate,
    Signal,
    TemplateReady,
    server_control_reader,
)
from twisted_serve.workers.process.framing import FrameProtocol
from twisted_serve.workers.template.process import ORPHANED, ForkedProcess, Forking

# Seconds in which a template must fork one process, and in which it must kill and reap one. A template that does not
# is stuck, or model code only pretends to be a template.
FORK_LIMIT = 10.0
KILL_LIMIT = 5.0


class _ControlTransport(IUNIXTransport, ITCPTransport):
    """The transport of an adopted UNIX socket: it can send descriptors and abort."""


class TemplateOwner(Protocol):
    """The receiver of a template's events."""

    def template_ready(self, link: TemplateLink) -> None:
        """Handle that the template can fork now."""

    def template_impossible(self, link: TemplateLink, reason: str) -> None:
        """Handle that this worker cannot become a template, and why."""

    def template_formed(self, link: TemplateLink, successor: ForkedProcess) -> None:
        """Handle that the worker has become a template; its first child ``successor`` continues as the worker."""

    def template_lost(self, link: TemplateLink, why: str) -> None:
        """Handle the end of the template; its processes end with it and have already been told."""


class TemplateLink(FrameProtocol[FromTemplate]):
    """The connection to one template. Closing it ends the template and all of its processes."""

    transport: _ControlTransport

    def __init__(self, owner: TemplateOwner, clock: IReactorTime) -> None:
        super().__init__(server_control_reader())
        self._owner = owner
        self._clock = clock
        self._unforked: set[int] = set()
        self._fork_limit: IDelayedCall | None = None
        self._killing: dict[int, IDelayedCall] = {}
        self._successor: ForkedProcess | None = None
        # The template that forked this one, and the number of this one there.
        self._origin: tuple[Forking, int] | None = None
        self._processes: dict[int, ForkedProcess] = {}
        self._control_sockets: dict[int, int] = {}

    def expect(self, successor: ForkedProcess) -> None:
        """
        Make this the link to a worker that may become a template.

        :param successor: The worker's process; if the worker becomes a template, its first fork takes over as this
            process.
        """
        self._successor = successor
        self._origin = (successor.template, successor.number)

    def fork(self, process: ForkedProcess, message: Fork, control: int | None = None) -> None:
        """
        Ask the template to fork a process.

        :param control: The control socket for a process that may become a template. It is closed here when the process
            has it, and when this method raises.
        """
        if control is not None:
            self._control_sockets[process.number] = control
        try:
            frame = encode(message)
            # The descriptors stay open until the template has answered: they are sent when the socket is writable.
            for descriptor in process.descriptors if control is None else [*process.descriptors, control]:
                self.transport.sendFileDescriptor(descriptor)
            self.transport.write(frame)
        except BaseException:
            self._close_control(process.number)
            raise
        self.register(process)
        self._unforked.add(process.number)
        if self._fork_limit is None:
            self._expect_fork()

    def register(self, process: ForkedProcess) -> None:
        """Register a process as a child of this template."""
        self._processes[process.number] = process

    def unregister(self, process: ForkedProcess) -> None:
        """Unregister a process; its events are no longer delivered."""
        self._forget(process.number)

    def signal(self, number: int, signum: int) -> None:
        """Have the template send a signal to one of its processes, if the process is still alive."""
        if self.is_open:
            self.transport.write(bytes(encode(Signal(number, signum))))
            if signum == SIGKILL and number in self._processes and number not in self._killing:
                self._killing[number] = self._clock.callLater(
                    KILL_LIMIT, self._too_slow, "it does not end what it was told to"
                )

    def messageReceived(self, message: FromTemplate) -> None:
        """Handle an event of the template or of one of its processes."""
        if isinstance(message, TemplateReady):
            self._owner.template_ready(self)
        elif isinstance(message, Alone):
            self._settle()
            self._origin = None
            self._owner.template_impossible(self, message.reason)
        elif isinstance(message, Forked):
            self._fork_done(message.number)
            self._close_control(message.number)
            successor = self._successor
            if successor is not None and successor.number == message.number:
                self._successor = None
                self.register(successor)
                successor.taken_over(message.pid, self)
                self._owner.template_formed(self, successor)
            elif message.number in self._processes:
                self._processes[message.number].forked(message.pid)
        else:
            self._close_control(message.number)
            process = self._forget(message.number)
            if process is not None and isinstance(message, ForkFailed):
                process.fork_failed(message.reason)
            elif process is not None and isinstance(message, Exited):
                process.exited(message.status)

    def connectionEnded(self, why: str) -> None:
        """Handle the end of the template: close lent descriptors and report the exit of its processes."""
        for number in list(self._control_sockets):
            self._close_control(number)
        for number in list(self._processes):
            process = self._forget(number)
            if process is not None:
                process.exited(ORPHANED)
        if self._successor is None and self._origin is not None:
            # A template exits by itself when its link closes, unless the code of its model prevents that.
            template, number = self._origin
            template.signal(number, SIGKILL)
        self._settle()
        self._owner.template_lost(self, why)

    def _forget(self, number: int) -> ForkedProcess | None:
        self._fork_done(number)
        _cancel(self._killing.pop(number, None))
        return self._processes.pop(number, None)

    def _fork_done(self, number: int) -> None:
        if number in self._unforked:
            self._unforked.remove(number)
            self._expect_fork()

    def _expect_fork(self) -> None:
        """Restart the timeout for the next fork; a template forks one process after the other."""
        _cancel(self._fork_limit)
        waiting = bool(self._unforked)
        self._fork_limit = self._clock.callLater(FORK_LIMIT, self._too_slow, "it does not fork") if waiting else None

    def _too_slow(self, why: str) -> None:
        self.abort(why)

    def _settle(self) -> None:
        """Settle that the expected process is the worker itself and not a template."""
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.decided()

    def _close_control(self, number: int) -> None:
        descriptor = self._control_sockets.pop(number, None)
        if descriptor is not None:
            os.close(descriptor)


def _cancel(limit: IDelayedCall | None) -> None:
    if limit is not None and limit.active():
        limit.cancel()
