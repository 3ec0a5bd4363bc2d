# SPDX-License-Identifier: Apache-2.0
"""Find ports for servers that have to be told which."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from random import SystemRandom

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(number: int) -> list[int]:
    """
    Return ports of 127.0.0.1 that are free.

    They are below those that the kernel chooses from, for a client or for port 0: other tests, which run at the same
    time, do not get one of them before the server has it.
    """
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    choice = range(10_000, end if end > 20_000 else 32_768)
    found: list[int] = []
    with ExitStack() as taken:
        for port in SystemRandom().sample(choice, 1000):
            if len(found) == number:
                return found
            with suppress(OSError):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    raise AssertionError(f"no {number} ports are free")
