# SPDX-License-Identifier: Apache-2.0
"""
Give pytest the fixtures of the testing kit: a server in memory, a function that makes others, and their clock.

pytest finds this module by its entry point.  Nothing is imported, and nothing happens, until a test uses a fixture.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from twisted_serve.testing.memory import MemoryServeReactor
    from twisted_serve.testing.server import MemoryServer

__all__ = ["MakeMemoryServer"]

_MARKER = "memory_server(**arguments): the arguments of MemoryServer for the fixture memory_server"


class MakeMemoryServer(Protocol):
    """The fixture ``make_memory_server``: makes a server, with the arguments of `MemoryServer`."""

    def __call__(self, *arguments: Any, **named: Any) -> MemoryServer:
        """Return a new server; it is closed after the test."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, for ``--strict-markers``."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def virtual_clock() -> MemoryServeReactor:
    """Return the clock of all servers of this test; ``virtual_clock.advance(60)`` lets a minute pass."""
    from twisted_serve.testing.memory import MemoryServeReactor  # noqa: PLC0415

    return MemoryServeReactor()


@pytest.fixture
def make_memory_server(virtual_clock: MemoryServeReactor) -> Iterator[MakeMemoryServer]:
    """Return a function that makes servers, with the arguments of MemoryServer; they are closed after the test."""
    from twisted_serve.testing.server import MemoryServer  # noqa: PLC0415

    with ExitStack() as servers:

        def make(*arguments: Any, **named: Any) -> MemoryServer:
            return servers.enter_context(MemoryServer(*arguments, **{"clock": virtual_clock, **named}))

        yield make


@pytest.fixture
def memory_server(request: pytest.FixtureRequest, make_memory_server: MakeMemoryServer) -> MemoryServer:
    """Return a running server with the arguments of the marker memory_server; it is closed after the test."""
    from twisted_serve.testing.server import MemoryServer  # noqa: PLC0415

    arguments: dict[str, Any] = {}
    # The closest marker comes first; each of its arguments replaces that of a class or module.
    for mark in reversed(list(request.node.iter_markers("memory_server"))):
        if mark.args:
            pytest.fail(f"pytest.mark.memory_server takes arguments by name only, not {mark.args[0]!r}", pytrace=False)
        arguments |= mark.kwargs
    for name in arguments:
        if name not in inspect.signature(MemoryServer).parameters:
            pytest.fail(f"pytest.mark.memory_server: MemoryServer has no argument {name!r}", pytrace=False)
    return make_memory_server(**arguments)
