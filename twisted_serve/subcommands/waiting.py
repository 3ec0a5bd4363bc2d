# SPDX-License-Identifier: Apache-2.0
"""
Wait for a request that takes long, and show on the terminal what the server is doing meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from twisted_serve.subcommands.fleet import ready_workers, versions_of
from twisted_serve.subcommands.outcomes import Failed
from twisted_serve.subcommands.session import Session

# Seconds: the server has its own limits for a start of workers, and says when they are over.
PATIENCE = 86400.0

# Seconds between two looks.
_INTERVAL = 0.5

# The end of a log that is looked at, in bytes.
_TAIL = 16384


def call_patiently(
    session: Session, method: str, path: str, query: dict[str, Any], model: str, workers: int
) -> dict[str, Any]:
    """
    Send a request that is answered when workers have loaded; show how far they are, if there is a terminal.

    :param model: The model's name, as far as it is known.
    :param workers: How many workers are wanted.
    :return: The members of the answer.
    :raise Failed: when the server refuses, or the workers do not load.
    """
    with session.out.waiting(f"{model}: asking") as show:
        if not session.out.interactive:
            return session.call("management", method, path, query=query, timeout=PATIENCE).members()
        ended: list[dict[str, Any] | Exception] = []

        def call() -> None:
            try:
                ended.append(session.call("management", method, path, query=query, timeout=PATIENCE).members())
            except Exception as e:  # raised again by the waiting thread
                ended.append(e)

        # A daemon, so that Ctrl-C ends the command.
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        begun, log = time.monotonic(), _ModelLog(session, model)
        while thread.is_alive():
            show(f"{_phase(session, model, workers)} ({time.monotonic() - begun:.0f} s) {log.last_line()}".rstrip())
            thread.join(_INTERVAL)
    [result] = ended
    if isinstance(result, Exception):
        raise result
    return result


def _phase(session: Session, model: str, workers: int) -> str:
    try:
        versions = versions_of(session, model)
    except (Failed, click.ClickException):
        versions = []
    if not versions:
        return f"{model}: downloading and unpacking"
    newest = max(versions, key=lambda each: max((str(w.get("startTime")) for w in each.get("workers", [])), default=""))
    return f"{model} {newest.get('modelVersion')}: loading, {ready_workers(newest)} of {workers} workers ready"


class _ModelLog:
    """The lines of a model's handler since now, where the server is on this machine and has log files."""

    def __init__(self, session: Session, model: str) -> None:
        directory = None if session.server is None else session.server.log_directory
        self._path = None if directory is None else Path(directory) / "model_log.log"
        self._mark = f"-{model}_"
        self._from = 0
        with suppress(OSError):
            self._from = 0 if self._path is None else self._path.stat().st_size

    def last_line(self) -> str:
        """Return the last line of the model; empty if there is none."""
        if self._path is None:
            return ""
        with suppress(OSError), self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(self._from, size), size - _TAIL))
            for line in reversed(file.read(_TAIL).decode(errors="replace").splitlines()):
                if self._mark in line:
                    return line.partition(" - ")[2] or line
        return ""
