# SPDX-License-Identifier: Apache-2.0
"""
Run the root template process: ``python -m twisted_serve.backend.template.root --fd N``.

It imports the modules that all workers need, and forks workers, which load a model each.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from twisted_serve.backend.channel import Channel
from twisted_serve.backend.process import (
    NotAWorkerError,
    die_with_parent,
    end_children_at_exit,
    enter_model_dir,
    enter_session,
    inherited_socket,
    search_path,
    set_logging,
    set_name,
    set_signals,
)
from twisted_serve.backend.session import serve
from twisted_serve.backend.template.after_load import TEMPLATE_NAME, Divisible, take_output
from twisted_serve.backend.template.fork_safety import reseed, set_threads, wanted_threads
from twisted_serve.backend.template.loop import Birth, Template
from twisted_serve.backend.ts import names
from twisted_serve.wire.control import TemplateReady

# Modules that most workers import.
_HANDLER_LIBRARY = ("twisted_serve.handlers.base", "twisted_serve.handlers.weights")


def main(arguments: Sequence[str]) -> int:
    """Run a template in this process; return the exit code in each forked worker."""
    parser = argparse.ArgumentParser(
        prog="python -m twisted_serve.backend.template.root", description="A template of twisted_serve's workers."
    )
    parser.add_argument("--fd", type=int, required=True, help="the inherited AF_UNIX stream socket")
    parser.add_argument("--preload", action="append", default=[], help="a module which workers will need")
    options = parser.parse_args(arguments)
    try:
        control = inherited_socket(options.fd)
        die_with_parent(control)
    except NotAWorkerError as e:
        parser.error(str(e))
    enter_session()
    set_signals()
    set_name(TEMPLATE_NAME)
    set_logging()
    names.install()
    # As in a worker: do not import modules from the server's working directory.
    package_root = str(Path(__file__).resolve().parents[3])
    sys.path[:] = search_path(sys.path, "", package_root)[1:]
    for module in (*_HANDLER_LIBRARY, *options.preload):
        # A handler that needs the module reports the error when it imports it.
        with suppress(ImportError):
            import_module(module)
    # These objects live forever; a garbage collection would write to their pages and copy them in each worker.
    gc.freeze()
    template = Template(control, adopts=True)
    template.say(TemplateReady())
    return live(template.serve())


def live(birth: Birth) -> int:
    """Run a worker in this newly forked process; return its exit code."""
    output = (os.dup(1), os.dup(2)) if birth.fork.may_divide else None
    take_output(birth)
    set_name(birth.fork.name)
    if birth.fork.environment is not None:
        os.environ.clear()
        os.environ.update(birth.fork.environment)
    reseed()
    end_children_at_exit()
    connection = inherited_socket(birth.descriptors["frames"])
    channel = Channel(connection)
    if output is not None:
        first = Divisible(birth, connection, output)
        return serve(channel, first.enter, first.settle)
    set_threads(wanted_threads())
    return serve(channel, enter_model_dir)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
