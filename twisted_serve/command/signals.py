# SPDX-License-Identifier: Apache-2.0
"""
Handle signals in a process that runs one server.

SIGHUP has two meanings: the operator asks for files to be reloaded, or the terminal in which the server was started
was closed.  The second is recognised by the terminal: there was one, and now it cannot be opened.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from twisted_serve.interfaces import IServeReactor

#: Signals that ask a server to stop.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

# Other servers reopen their logs on these; without a handler, the process would be killed and leave its files behind.
# ``twistd`` rotates its log on SIGUSR1: a handler that is there stays.
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2)

#: All signals handled here.
ALL = (*ENDING, signal.SIGHUP, *_IGNORED)


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def handle(
    reactor: IServeReactor, end: Callable[[], object], reload: Callable[[], object], ending: Iterable[int] = ENDING
) -> None:
    """
    Install handlers for all signals of a server; an ignored signal, e.g. after ``nohup``, stays ignored, and others'
    handlers of SIGUSR1 and SIGUSR2 stay.

    :param end: Called in the reactor's thread to stop the server.
    :param reload: Called in the reactor's thread to reload files.
    :param ending: The signals that stop the server.
    """
    had_terminal = has_terminal()

    def hung_up() -> None:
        if had_terminal and not has_terminal():
            end()
        else:
            reload()

    calls: dict[int, Callable[[], object]] = dict.fromkeys(ending, end)
    calls[signal.SIGHUP] = hung_up
    calls |= {number: lambda: None for number in _IGNORED if signal.getsignal(number) is signal.SIG_DFL}
    for number, call in calls.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_, call=call: reactor.callFromThread(call))
