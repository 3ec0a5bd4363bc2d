# SPDX-License-Identifier: Apache-2.0
"""
Hold back the signals that are the server's to react to, until a new process has handlers for them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

#: What a terminal, ``systemd`` or ``kill`` sends to all processes of a server at once.
FOR_THE_SERVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextmanager
def held_back() -> Iterator[None]:
    """Start processes in which these signals wait until `twisted_serve.backend.process.set_signals` takes them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_SERVER)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
