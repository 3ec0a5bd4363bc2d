# SPDX-License-Identifier: Apache-2.0
"""Replace single modules of this process for one test."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

#: Stands for a module that has not been imported.
ABSENT: Final = object()


def replace_modules(case: SynchronousTestCase, modules: Mapping[str, Any]) -> None:
    """
    Put objects into ``sys.modules`` until a test ends.

    The interpreter goes on looking into the very dictionary that was there at its start: with another one in its
    place, what is imported meanwhile is there for one half of the import system only, and fails in later tests.

    :param modules: What to have under each name: ``None`` for a module that cannot be imported, or `ABSENT`.
    """
    for name, module in modules.items():
        case.addCleanup(_put, name, sys.modules.get(name, ABSENT))
        _put(name, module)


def _put(name: str, module: Any) -> None:
    if module is ABSENT:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module
