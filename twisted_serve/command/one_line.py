# SPDX-License-Identifier: Apache-2.0
"""
Refuse to run under ``twistd`` in one line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from twisted_serve.logs import printable


def program() -> str:
    """Return the words of the command line that lead to our options."""
    runner = Path(sys.argv[0]).name
    return f"{runner if runner == 'twist' else 'twistd'} twisted-serve"


def in_one_line(reason: str) -> str:
    """Return a message for the operator as one line, without control characters."""
    return printable(f"{program()}: {' '.join(reason.split())}")


def refuse(reason: str) -> NoReturn:
    """
    End the program before its service is made, with one line on stderr and status 1.

    ``twistd`` would print all its options for a `UsageError`.

    :raise SystemExit: always.
    """
    raise SystemExit(in_one_line(reason))
