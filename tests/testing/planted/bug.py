# SPDX-License-Identifier: Apache-2.0
"""
Define a planted bug: a mistake in the real code, for as long as a context is entered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import Flag, auto
from typing import Any
from unittest.mock import patch

from attrs import field, frozen

#: What the machine says about a key that lives for too short a time: whichever it sees first.
TOO_SHORT = (
    r"^(key_file.json says that the (management|inference) key expires at "
    r"|the (management|inference) key did not open GET /(models|ping) at .* before its expiry: )"
)


class Concern(Flag):
    """The parts of a key's handling that a bug is in."""

    EXPIRY = auto()
    DATE = auto()
    ROTATION = auto()
    OTHER_KEY = auto()
    RESTART = auto()
    FILE = auto()
    REQUEST = auto()
    OVERLAP = auto()
    KEPT = auto()
    NAMED = auto()


@frozen
class Planted:
    """
    A bug to plant.

    :ivar name: Its name in the reports of tests.
    :ivar concerns: The parts of a key's handling that it is in.
    :ivar told: What a failure of the machine says about it: a regular expression.
    :ivar plant: Plants the bug while its context is entered.
    :ivar options: The settings of the machine's server.
    """

    name: str
    concerns: Concern
    told: str
    plant: Callable[[], AbstractContextManager[Any]] = field(eq=False, repr=False)
    options: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)


def replacing(owner: object, **attributes: Any) -> Callable[[], AbstractContextManager[None]]:
    """Return a planter that replaces attributes of a class or module."""

    @contextmanager
    def plant() -> Iterator[None]:
        with ExitStack() as stack:
            for name, value in attributes.items():
                stack.enter_context(patch.object(owner, name, value))
            yield

    return plant
