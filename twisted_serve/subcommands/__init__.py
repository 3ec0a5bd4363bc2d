# SPDX-License-Identifier: Apache-2.0
"""
Operate servers from a terminal: the sub-commands of ``twisted-serve``.

``group``       the group of the sub-commands, each imported when it runs; their exit status
``outcomes``    exit statuses, and the errors that have them
``finding``     find the server that a command is about
``client``      send one request, and read its answer
``addressing``  connections over TCP, TLS and Unix sockets
``keys``        the key for a request
``session``     what a command gets: the server, its answers, the output
``output``      words for people, or JSON
``completing``  complete words in a shell
``shims``       TorchServe's commands
``moments``     dates and durations, read and written
``fleet``       the models of a server and their workers
``waiting``     a request that takes long, and what the server does meanwhile
``payload``     the body of a prediction
``dev``         serve a handler's file while its author works on it
``bench``       load a model for a few seconds, and measure how it answers
``top``         show the models as they work
``token``       show, rotate, list, create, change and revoke keys
``models``      list, describe, register, scale and unregister models
``predict``     ask a model
``status``      which servers run
``logs``        print and follow a log

``check_config``  check a configuration file

The server's process imports nothing of this package but this list.
"""

from collections.abc import Mapping
from types import MappingProxyType

PROGRAM = "twisted-serve"

#: The variable with which a shell asks for completions; click names it so.
COMPLETION = "_TWISTED_SERVE_COMPLETE"

#: The sub-commands: the module of this package, the name of the click command in it, and its summary.
NAMES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "dev": ("dev.command", "dev", "Serve a handler's file, without an archive, and load it again when it changes."),
        "bench": ("bench.command", "bench", "Load a model for some seconds, and show rate and latencies."),
        "top": ("top.command", "top", "Show the models as they work: workers, queue, rate, latencies, errors, memory."),
        "token": ("token", "token", "Show, rotate and manage keys."),
        "models": ("models", "models", "List, register, scale and unregister models."),
        "predict": ("predict", "predict", "Ask a model, and print its answer."),
        "status": ("status", "status", "Show which servers run, with their models and keys."),
        "logs": ("logs", "logs", "Print the log of a server on this machine."),
        "check-config": ("check_config", "check_config", "Check a configuration file, without starting a server."),
        "completion": ("completing", "completion", "Print the completion script of a shell."),
        "shims": ("shims", "shims", "Write torchserve and the archivers as commands of this installation."),
    }
)
