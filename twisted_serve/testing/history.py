# SPDX-License-Identifier: Apache-2.0
"""
Run a server through histories that a Hypothesis state machine makes, and tell what happened in them.

Failures say what was wrong in words, to which pytest adds no values: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hypothesis import currently_in_test_context, note
from hypothesis.stateful import RuleBasedStateMachine

from twisted_serve.testing.answers import role_of
from twisted_serve.testing.server import MemoryServer
from twisted_serve.testing.words import spell_moment

__all__ = ["ServerMachine"]


class _TestCase:
    """Adds a test method to the test case of a machine: trial does not find ``runTest``."""

    def __get__(self, machine: object, kind: type[ServerMachine]) -> Any:
        case: Any = super(ServerMachine, kind).TestCase
        case.test_all_histories = case.runTest
        return case


class ServerMachine(RuleBasedStateMachine):
    """
    A state machine over one server.

    :cvar options: Settings of the server, as for :class:`~twisted_serve.testing.server.MemoryServer`.
    :ivar server: The server.
    """

    options: ClassVar[Mapping[str, Any]] = {}

    TestCase = _TestCase()

    def __init__(self) -> None:
        super().__init__()
        self.server = self.make_server()
        self._start = self.server.now()

    def make_server(self) -> MemoryServer:
        """Return a new server; override it for one with your own dependencies, or behind another transport."""
        return MemoryServer(self.options)

    def _status(self, method: str, path: str, *authorization: str) -> int:
        """Return the status of a request with these ``Authorization`` headers."""
        role = role_of(path)
        connection = self.server.connect(role)
        headers = [f"Authorization: {value}" for value in authorization]
        status = connection.ask(method, self.server.path_of(path, role), *headers)
        connection.leave()
        return status

    def _time(self) -> str:
        return spell_moment(self.server.now(), self._start)

    def _tell(self, event: str) -> None:
        """Add an event to the story of a failure."""
        if currently_in_test_context():
            note(f"# {self._time()}  {event}")
