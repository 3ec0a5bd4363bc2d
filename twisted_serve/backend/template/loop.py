# SPDX-License-Identifier: Apache-2.0
"""
Fork, reap and signal workers on the server's request: a template process (zygote).

Each forked process returns from :meth:`Template.serve` with its request and descriptors.
The server is notified when a process starts and when it has been reaped. Signals go through
the template, too: only the parent can be sure that a process id has not been reused.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import deque
from contextlib import suppress

from twisted_serve.backend.process import adopt, divide, end_with_parent, enter_session
from twisted_serve.system.descendants import descendants, kill, kill_descendants, kill_group
from twisted_serve.wire.codec import encode
from twisted_serve.wire.control import (
    ENDS,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    FromTemplate,
    Signal,
    template_control_reader,
)

# More descriptors than one request carries.
_MOST_DESCRIPTORS = 16
_READ_SIZE = 1 << 16
# Milliseconds between reaps of adopted processes, if no other event occurs.
_REST = 60_000


class Birth:
    """
    The request and descriptors of a forked process.

    :ivar fork: The server's request.
    :ivar descriptors: The descriptors, by their names in :data:`~twisted_serve.wire.control.ENDS`.
    """

    def __init__(self, fork: Fork, descriptors: dict[str, int]) -> None:
        self.fork = fork
        self.descriptors = descriptors


class Template:
    """
    A template in this process.

    :param control: The socket to the server.
    :param adopts: If true, become the parent of processes that workers have started and outlived (a subreaper).
    """

    def __init__(self, control: socket.socket, adopts: bool = False) -> None:
        self._control = control
        self._adopts = adopts
        self._reader = template_control_reader()
        self._received: deque[int] = deque()
        # Process descriptor (pidfd) to number and process id, for processes that have not been reaped.
        self._children: dict[int, tuple[int, int]] = {}

    def say(self, message: FromTemplate) -> None:
        """
        Send a message to the server.

        :raise OSError: if the server has closed the connection.
        """
        self._control.sendall(encode(message))

    def serve(self) -> Birth:
        """Serve requests until the server closes its end, then exit; return only in forked processes."""
        watch = select.poll()
        watch.register(self._control, select.POLLIN)
        known: set[int] = set()
        if self._adopts:
            adopt()
            # Not SIGKILL: when the server dies, the template has to kill adopted processes, too.
            end_with_parent(signal.SIGCONT)
        with suppress(OSError):
            while True:
                for descriptor in known ^ set(self._children):
                    if descriptor in self._children:
                        watch.register(descriptor, select.POLLIN)
                    else:
                        watch.unregister(descriptor)
                known = set(self._children)
                ready = {descriptor for descriptor, _ in watch.poll(_REST if self._adopts else None)}
                for descriptor in ready & known:
                    self._reap(descriptor)
                if self._adopts:
                    self._reap_adopted()
                if self._control.fileno() in ready:
                    if not self._receive():
                        break
                    for message in self._reader.messages():
                        if isinstance(message, Signal):
                            self._signal(message)
                            continue
                        birth = self._fork(message)
                        if birth is not None:
                            return birth
        self._shut_down()
        raise AssertionError("not reached")

    def fork(self, number: int) -> bool:
        """
        Fork this process; return whether this is the child.

        The child closes all descriptors of the template.

        :raise OSError: if no process can be created, or the server has closed the connection.
        """
        parent = os.getpid()
        pid = divide()
        if pid == 0:
            try:
                self._detach_child(parent)
            except BaseException:
                # The child must not continue as a template.
                os._exit(1)
            return True
        # Only this process can reap the child, so the process id is still valid.
        self._children[os.pidfd_open(pid)] = (number, pid)
        self.say(Forked(number, pid))
        return False

    def _fork(self, wanted: Fork) -> Birth | None:
        names = ENDS if wanted.may_divide else ENDS[:-1]
        ends = {name: self._received.popleft() for name in names}
        try:
            if self.fork(wanted.number):
                return Birth(wanted, ends)
        except OSError as e:
            self.say(ForkFailed(wanted.number, f"fork: {e.strerror}"))
        for descriptor in ends.values():
            os.close(descriptor)
        return None

    def _detach_child(self, parent: int) -> None:
        """Set up a child: end with the parent, and close the parent's descriptors."""
        enter_session()
        end_with_parent()
        if os.getppid() != parent:
            os._exit(0)
        self._control.close()
        for descriptor in [*self._children, *self._received]:
            os.close(descriptor)
        self._children.clear()
        self._received.clear()

    def _receive(self) -> bool:
        """Read once; return whether the server is still connected."""
        data, descriptors, _flags, _address = socket.recv_fds(self._control, _READ_SIZE, _MOST_DESCRIPTORS)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._received += descriptors
        self._reader.receive(data)
        return bool(data)

    def _signal(self, wanted: Signal) -> None:
        for descriptor, (number, pid) in self._children.items():
            if number == wanted.number:
                # Its descendants can only be found while it is alive.
                started = descendants(pid) if wanted.signal == signal.SIGKILL else []
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, wanted.signal)
                kill(started)

    def _reap(self, descriptor: int) -> None:
        number, pid = self._children.pop(descriptor)
        # Before the process id can be reused.
        kill_group(pid)
        _, status = os.waitpid(pid, 0)
        os.close(descriptor)
        self.say(Exited(number, status))

    def _reap_adopted(self) -> None:
        """Reap adopted processes that have ended."""
        workers = {pid: descriptor for descriptor, (_number, pid) in self._children.items()}
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in workers:
                    self._reap(workers.pop(ended.si_pid))
                else:
                    os.waitpid(ended.si_pid, 0)

    def _shut_down(self) -> None:
        """Kill all descendants and exit."""
        kill_descendants(os.getpid())
        for descriptor, (_number, pid) in self._children.items():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        # Exit callbacks are for the forked workers to run.
        os._exit(0)
