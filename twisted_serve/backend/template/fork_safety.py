# SPDX-License-Identifier: Apache-2.0
"""
Check that a process with a loaded model can be forked safely, and set up the state of each fork.

A forked process has only the thread that forked, and shares the positions of open files
with its siblings. So a handler whose ``initialize`` leaves another thread, a child process,
an open socket or file, or an initialized device is loaded by each worker separately.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

# A stopped thread may take a moment to disappear: number of checks, and seconds between them.
_TRIES = 5
_MOMENT = 0.01

_HOLDABLE = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")


def descriptors() -> set[int]:
    """Return the descriptors open in this process."""
    # The directory itself was open while it was read.
    return {each for each in map(int, os.listdir("/proc/self/fd")) if _is_open(each)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Safety:
    """
    A comparison of the process before and after the model was loaded.

    :param open_before: The descriptors that were open before loading.
    """

    def __init__(self, open_before: set[int]) -> None:
        self._open_before = open_before

    def objection(self, handler: object) -> str | None:
        """Return the reason why this process must not be forked, or ``None`` if it is safe."""
        return _threads() or _children() or self._holds() or _device(handler)

    def _holds(self) -> str | None:
        for descriptor in sorted(descriptors() - self._open_before):
            what = os.readlink(f"/proc/self/fd/{descriptor}")
            flags = int(_field(Path(f"/proc/self/fdinfo/{descriptor}").read_text(), "flags"), 8)
            # A file in append mode, such as a log, has no position to share.
            if what not in _HOLDABLE and not (flags & os.O_APPEND and what.startswith("/")):
                kind = Path(what).name if what.startswith("/") else what.partition(":")[0]
                return f"it holds {kind} open"
        return None


def _field(text: str, name: str) -> str:
    return next(line.partition(":")[2] for line in text.splitlines() if line.startswith(f"{name}:"))


def _threads() -> str | None:
    for _ in range(_TRIES):
        extra = len(os.listdir("/proc/self/task")) - 1
        if not extra:
            return None
        time.sleep(_MOMENT)
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    named = f" ({', '.join(sorted(names)[:3])})" if names else ""
    return f"it has {extra} more thread{'s' if extra > 1 else ''}{named}"


def _children() -> str | None:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return "it started a process"


def _device(handler: object) -> str | None:
    torch = sys.modules.get("torch")
    if torch is not None:
        for kind in ("cuda", "xpu"):
            if getattr(getattr(torch, kind, None), "is_initialized", bool)():
                return f"it uses {kind}"
    device = getattr(getattr(handler, "device", None), "type", "cpu")
    return None if device == "cpu" else f"it uses {device}"


def wanted_threads() -> int | None:
    """Return the number of compute threads set in ``OMP_NUM_THREADS``, or ``None``."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def set_threads(count: int | None) -> None:
    """Set torch's number of threads, if torch has been imported; otherwise it reads the environment on import."""
    torch = sys.modules.get("torch")
    if torch is not None and count is not None:
        torch.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[Callable[[], bool]]:
    """
    Limit torch to one thread in the block, so that it starts no threads.

    :return: A function that returns whether the handler has called ``torch.set_num_threads``, which takes precedence.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield lambda: False
        return
    chosen: list[int] = []
    choose = torch.set_num_threads

    def noted(count: int) -> None:
        chosen.append(count)
        choose(count)

    choose(1)
    torch.set_num_threads = noted
    try:
        yield lambda: bool(chosen)
    finally:
        torch.set_num_threads = choose


def reseed() -> None:
    """Reseed NumPy and torch, so that siblings draw different numbers; ``random`` reseeds itself after a fork."""
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(int.from_bytes(os.urandom(4), "little"))
    torch: ModuleType | None = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(int.from_bytes(os.urandom(7), "little"))
