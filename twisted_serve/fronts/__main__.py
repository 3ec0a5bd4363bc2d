# SPDX-License-Identifier: Apache-2.0
"""
Run a front: ``python -m twisted_serve.fronts --messages N --connections M``.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from typing import Any, cast

from twisted_serve.backend.process import (
    NotAWorkerError,
    die_with_parent,
    enter_session,
    inherited_socket,
    set_name,
    set_signals,
)
from twisted_serve.eventloop.monotonic import use_steady_clock
from twisted_serve.eventloop.polling import without_log_context
from twisted_serve.fronts.front import Front
from twisted_serve.interfaces import IServeReactor
from twisted_serve.system.account import protect_memory
from twisted_serve.system.garbage import keep_all
from twisted_serve.workers.process.connection import AdoptedFactory


def main(arguments: Sequence[str]) -> int:
    """Run a front in this process until the server ends it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m twisted_serve.fronts", description="A front of twisted_serve.")
    parser.add_argument("--messages", type=int, required=True, help="the inherited AF_UNIX stream socket for messages")
    parser.add_argument("--connections", type=int, required=True, help="the one over which connections go and come")
    options = parser.parse_args(arguments)
    try:
        messages, connections = inherited_socket(options.messages), inherited_socket(options.connections)
        die_with_parent(messages)
    except NotAWorkerError as e:
        parser.error(str(e))
    enter_session()
    set_signals()
    set_name("ts-front")
    protect_memory()
    from twisted.internet import reactor as chosen  # noqa: PLC0415 - importing it is choosing it

    reactor = cast(IServeReactor, chosen)
    use_steady_clock(reactor)
    without_log_context(reactor)
    messages.setblocking(False)
    front = Front(reactor, connections, lambda: reactor.callWhenRunning(reactor.stop))
    reactor.adoptStreamConnection(messages.fileno(), socket.AF_UNIX, AdoptedFactory(front))
    messages.close()
    keep_all()
    # Of Twisted's own reactors, which all have this argument.
    cast(Any, reactor).run(installSignalHandlers=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
