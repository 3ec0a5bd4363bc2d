# SPDX-License-Identifier: Apache-2.0
"""
Block the signals that the server handles until a new process has installed its handlers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

#: Signals that a terminal, ``systemd`` or ``kill`` sends to all processes of a server simultaneously.
FOR_THE_SERVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextmanager
def held_back() -> Iterator[None]:
    """
    Block these signals while starting processes; `twisted_serve.backend.process.set_signals` unblocks them in the
    child.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_SERVER)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
