# SPDX-License-Identifier: Apache-2.0
"""
This module implements a template: a process which does nothing but fork when the server says so.

What it forks finds itself returning from :meth:`Template.serve`, with what it
was born with.  The server hears of each process when it begins and when it has
been reaped; signals go by way of the template too, which alone knows for certain
whose process id it is still.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import deque
from contextlib import suppress

from twisted_serve.backend.process import adopt, divide, end_with_parent, enter_session
from twisted_serve.descendants import descendants, kill, kill_descendants, kill_group
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

# More than comes with one request.
_MOST_DESCRIPTORS = 16
_READ_SIZE = 1 << 16
# Milliseconds after which the remains of adopted processes are cleared away, if nothing else happens.
_REST = 60_000


class Birth:
    """
    What a forked process is born with.

    :ivar fork: What the server wanted.
    :ivar descriptors: Its ends, by their names in :data:`~twisted_serve.wire.control.ENDS`.
    """

    def __init__(self, fork: Fork, descriptors: dict[str, int]) -> None:
        self.fork = fork
        self.descriptors = descriptors


class Template:
    """
    This process, as one that forks.

    :param control: The socket to the server.
    :param adopts: Whether the processes come to this one that its workers have started and left alone.
    """

    def __init__(self, control: socket.socket, adopts: bool = False) -> None:
        self._control = control
        self._adopts = adopts
        self._reader = template_control_reader()
        self._received: deque[int] = deque()
        # The processes which have not been reaped, by the descriptors at which their ends are seen.
        self._children: dict[int, tuple[int, int]] = {}

    def say(self, message: FromTemplate) -> None:
        """
        Tell the server something.

        :raise OSError: if it has gone.
        """
        self._control.sendall(encode(message))

    def serve(self) -> Birth:
        """Fork until the server closes its end, and end this process then; return in the forked ones."""
        watch = select.poll()
        watch.register(self._control, select.POLLIN)
        known: set[int] = set()
        if self._adopts:
            adopt()
            # Not SIGKILL: when the server dies, there may be more to end than the kernel knows of.
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
        self._end()
        raise AssertionError("not reached")

    def fork(self, number: int) -> bool:
        """
        Divide this process; say whether this is the child.

        In the child nothing of the template is left.

        :raise OSError: if there can be no more processes, or the server has gone.
        """
        parent = os.getpid()
        pid = divide()
        if pid == 0:
            try:
                self._forget(parent)
            except BaseException:
                # It must not go on as what it is not.
                os._exit(1)
            return True
        # It cannot have been reaped but by us: the number is still its own.
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

    def _forget(self, parent: int) -> None:
        """Be a child: die with the parent, hold nothing of it."""
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
        """Read once; say whether the server is still there."""
        data, descriptors, _flags, _address = socket.recv_fds(self._control, _READ_SIZE, _MOST_DESCRIPTORS)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._received += descriptors
        self._reader.receive(data)
        return bool(data)

    def _signal(self, wanted: Signal) -> None:
        for descriptor, (number, pid) in self._children.items():
            if number == wanted.number:
                # What it has started can be found as long as it lives.
                started = descendants(pid) if wanted.signal == signal.SIGKILL else []
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, wanted.signal)
                kill(started)

    def _reap(self, descriptor: int) -> None:
        number, pid = self._children.pop(descriptor)
        # Before its number is free.
        kill_group(pid)
        _, status = os.waitpid(pid, 0)
        os.close(descriptor)
        self.say(Exited(number, status))

    def _reap_adopted(self) -> None:
        """Clear away the remains of processes that came to this one."""
        workers = {pid: descriptor for descriptor, (_number, pid) in self._children.items()}
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in workers:
                    self._reap(workers.pop(ended.si_pid))
                else:
                    os.waitpid(ended.si_pid, 0)

    def _end(self) -> None:
        """Leave no process behind."""
        kill_descendants(os.getpid())
        for descriptor, (_number, pid) in self._children.items():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        # What was registered to be done at the end is for those to do whom we forked.
        os._exit(0)
