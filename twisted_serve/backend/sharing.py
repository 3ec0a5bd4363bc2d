# SPDX-License-Identifier: Apache-2.0
"""
This module implements the decision whether a loaded model can be forked, and what each fork must do for itself.

A fork has one thread, the one that forked, and shares each open file's position
with its siblings.  So what a handler's ``initialize`` leaves behind decides:
another thread, a child process, an open socket or file, a device that was touched
make a model that each worker has to load for itself.
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

# A thread that was told to end may take a moment to be gone.
_TRIES = 5
_MOMENT = 0.01

_HOLDABLE = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")


def descriptors() -> set[int]:
    """Return what this process has open."""
    # The list itself was open while it was read.
    return {each for each in map(int, os.listdir("/proc/self/fd")) if _is_open(each)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Safety:
    """
    What this process was before the model was loaded, to be compared with what it is after.

    :param open_before: The descriptors that were open.
    """

    def __init__(self, open_before: set[int]) -> None:
        self._open_before = open_before

    def objection(self, handler: object) -> str | None:
        """Say why this process, with its loaded handler, must not be forked; ``None`` if it can be."""
        return _threads() or _children() or self._holds() or _device(handler)

    def _holds(self) -> str | None:
        for descriptor in sorted(descriptors() - self._open_before):
            what = os.readlink(f"/proc/self/fd/{descriptor}")
            flags = int(_field(Path(f"/proc/self/fdinfo/{descriptor}").read_text(), "flags"), 8)
            # What is only appended to has no position to share: a log.
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
    """Return how many threads a worker computes with, as its environment says; ``None`` if it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def set_threads(count: int | None) -> None:
    """Have torch compute with so many threads, if it has been imported; until then the environment tells it."""
    torch = sys.modules.get("torch")
    if torch is not None and count is not None:
        torch.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[Callable[[], bool]]:
    """
    Have torch compute with one thread for a while, so that it starts none.

    :return: Says whether somebody has chosen another number meanwhile, or the same one, and is to be obeyed.
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
    """Give this process chance of its own: siblings must not draw the same numbers.  ``random`` does it by itself."""
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(int.from_bytes(os.urandom(4), "little"))
    torch: ModuleType | None = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(int.from_bytes(os.urandom(7), "little"))
