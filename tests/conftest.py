# SPDX-License-Identifier: Apache-2.0
"""
What all tests share: a directory of their own to work in, and how hard Hypothesis tries.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.flaky import pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401 - pytest finds them here

# ``fast`` is the same on each run, so that a failure has to do with the change at hand;
# ``ci`` looks further, ``deep`` is for a night; ``brief`` is for other versions of Python and of libraries, whose
# differences do not hide in rare examples.  No deadline: machines are shared.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("fast", derandomize=True, max_examples=50, **_COMMON)  # type: ignore[arg-type]
settings.register_profile("brief", derandomize=True, max_examples=10, **_COMMON)  # type: ignore[arg-type]
settings.register_profile("ci", max_examples=200, **_COMMON)  # type: ignore[arg-type]
settings.register_profile("deep", max_examples=10_000, **_COMMON)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("TWISTED_SERVE_HYPOTHESIS", "fast"))

# With the fast lane off, the tests of servers in memory are those of the way that all other requests take.
if os.environ.get("TWISTED_SERVE_FAST_LANE") == "off":
    from twisted_serve.testing.server import MemoryServer

    MemoryServer.defaults = {**MemoryServer.defaults, "fast_lane": False}

# A shell that runs the tests in the background has SIGINT and SIGQUIT ignored, ``nohup`` has SIGHUP; so would all that
# they start.
_USUAL: dict[signal.Signals, Callable[[int, FrameType | None], Any] | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGTERM: signal.SIG_DFL,
}
for _number, _handler in _USUAL.items():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(autouse=True, scope="session")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work in a temporary directory: trial's ``mktemp`` makes directories where one is."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)
