# SPDX-License-Identifier: Apache-2.0
"""
Decide what a server makes of signals, in a process of its own.

SIGHUP has two meanings: an operator asks for files to be read again, or the terminal at which the server was started
has gone.  The second is recognised by the terminal: there was one, and it cannot be opened any more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from twisted_serve.interfaces import IServeReactor

#: What asks a server to end.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

# What other servers reopen their logs by; without a handler the process would end, and leave its files behind.
_MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)

#: Whatever has a handler here.
ALL = (*ENDING, signal.SIGHUP, *_MEANINGLESS)


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def handle(
    reactor: IServeReactor, end: Callable[[], object], reload: Callable[[], object], ending: Iterable[int] = ENDING
) -> None:
    """
    Handle all signals that a server knows; one that is ignored, e.g. after ``nohup``, stays so.

    :param end: Called in the reactor to end the server.
    :param reload: Called in the reactor to read files again.
    :param ending: The signals that end it.
    """
    had_terminal = has_terminal()

    def hung_up() -> None:
        if had_terminal and not has_terminal():
            end()
        else:
            reload()

    calls: dict[int, Callable[[], object]] = dict.fromkeys(ending, end)
    calls[signal.SIGHUP] = hung_up
    calls |= dict.fromkeys(_MEANINGLESS, lambda: None)
    for number, call in calls.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_, call=call: reactor.callFromThread(call))
