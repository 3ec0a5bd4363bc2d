# SPDX-License-Identifier: Apache-2.0
"""
Spawn workers as new processes, in any Python interpreter.

The process inherits one end of a socket pair, so no other process can connect to a worker, and there is no socket file.
"""

from __future__ import annotations

import socket

from twisted_serve.interfaces import IServeReactor
from twisted_serve.wire.held_back import held_back
from twisted_serve.workers.process.connection import AdoptedFactory
from twisted_serve.workers.process.launch import (
    SOCKET,
    Launch,
    module_command,
    open_descriptors,
    socket_error_text,
    worker_environment,
)


class Spawner:
    """A launcher that spawns a new process for each worker; see `Launcher`."""

    def __init__(self, reactor: IServeReactor) -> None:
        self._reactor = reactor

    def begin(self, launch: Launch) -> None:
        """Spawn the worker's process; see `Launcher`."""
        try:
            self._spawn(launch)
        except OSError as e:
            if launch.worker.connection.connected:
                # The connection was adopted, so it has to be closed, too: `attempt` abandons the worker.
                raise
            launch.worker.fail_to_start(socket_error_text(e))

    def _spawn(self, launch: Launch) -> None:
        worker, spec = launch.worker, launch.spec
        with open_descriptors() as (ours, theirs, devnull):
            # The reactor duplicates the descriptor; these ends are closed on exit from the block.
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, AdoptedFactory(worker.connection))
            try:
                with held_back():
                    transport = self._reactor.spawnProcess(
                        worker.process,
                        spec.python,
                        module_command(spec.python, "twisted_serve.backend", "--fd", str(SOCKET)),
                        env=worker_environment(spec.environment, spec.model_dir, spec.packages),
                        childFDs={0: devnull, 1: "r", 2: "r", SOCKET: theirs.fileno()},
                    )
            except (OSError, ValueError) as e:
                worker.fail_to_start(f"The worker's process could not be started: {e}")
                worker.connection.abort("there is no process")
                return
        worker.process.end_group_of(transport)
        worker.begin(transport.pid, launch.load)
