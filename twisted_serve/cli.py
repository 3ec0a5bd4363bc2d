# SPDX-License-Identifier: Apache-2.0
"""
Run the ``twisted-serve`` command: a sub-command if its first word is one, else TorchServe's command line.

Neither imports the other, so that a sub-command begins quickly and a server stays small.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from twisted_serve.subcommands import COMPLETION


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    :return: The exit status.
    :raise SystemExit: for an invalid command line of TorchServe's, and for ``--help``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # A flag is TorchServe's; no other word comes first on TorchServe's command line.
    if (words and not words[0].startswith("-")) or COMPLETION in os.environ:
        from twisted_serve.subcommands.group import operate  # noqa: PLC0415

        return operate(words)
    from twisted_serve.launcher import launch_or_stop  # noqa: PLC0415

    return launch_or_stop(words)


def main_as_torchserve(argv: Sequence[str] | None = None) -> int:
    """
    Run ``torchserve``, which has no sub-commands.

    :return: The exit status.
    :raise SystemExit: for an invalid command line, and for ``--help``.
    """
    from twisted_serve.launcher import launch_as_torchserve  # noqa: PLC0415

    return launch_as_torchserve(list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
