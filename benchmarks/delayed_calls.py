# SPDX-License-Identifier: Apache-2.0
"""
Run the command of the server, and write again and again how many delayed calls its reactor has.

It is run as a script, ``python delayed_calls.py FILE WORDS...``.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

# Seconds between two writes.
INTERVAL = 0.5


def watch(file: Path) -> None:
    """Write the number, for ever, from the time when the reactor runs."""

    def write(reactor: Any) -> None:
        file.write_text(str(len(reactor.getDelayedCalls())))

    while True:
        time.sleep(INTERVAL)
        # The command chooses the reactor: to import it here would be to choose another.
        reactor = sys.modules.get("twisted.internet.reactor")
        if getattr(reactor, "running", False):
            reactor.callFromThread(write, reactor)  # type: ignore[union-attr]


if __name__ == "__main__":
    from twisted_serve.cli import main

    threading.Thread(target=watch, args=[Path(sys.argv[1])], daemon=True).start()
    sys.exit(main(sys.argv[2:]))
