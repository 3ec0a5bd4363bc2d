# SPDX-License-Identifier: Apache-2.0
"""
Run a worker process: ``python -m twisted_serve.backend --fd N``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from twisted_serve.backend.channel import Channel
from twisted_serve.backend.process import (
    NotAWorkerError,
    die_with_parent,
    end_children_at_exit,
    enter_model_dir,
    enter_session,
    inherited_socket,
    set_logging,
    set_signals,
)
from twisted_serve.backend.session import serve
from twisted_serve.backend.ts import names


def main(arguments: Sequence[str]) -> int:
    """Run a worker in this process; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m twisted_serve.backend", description="A worker of twisted_serve.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited AF_UNIX stream socket")
    descriptor = parser.parse_args(arguments).fd
    try:
        connection = inherited_socket(descriptor)
        die_with_parent(connection)
    except NotAWorkerError as e:
        parser.error(str(e))
    enter_session()
    set_signals()
    end_children_at_exit()
    set_logging()
    names.install()
    return serve(Channel(connection), enter_model_dir)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
