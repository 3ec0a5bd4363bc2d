# SPDX-License-Identifier: Apache-2.0
"""
Print the log of a server on this machine, and follow it: ``twisted-serve logs``.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import click

from twisted_serve.command.run_file import RunningServer, start_of
from twisted_serve.subcommands.completing import model_names
from twisted_serve.subcommands.outcomes import Failed, NoServer
from twisted_serve.subcommands.session import Session, with_server

# Seconds between two looks at a file that is followed.
_INTERVAL = 0.2

# A line is not longer, in bytes; a longer one is shown in pieces.
_MAX_LINE = 1 << 20


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with the lines that the server writes, until it ends.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True, help="Lines of the past.")
@click.option("--model", shell_complete=model_names, help="Only what the workers of this model have written.")
@click.option("--access", is_flag=True, help="The requests, instead of the server's own log.")
@with_server
def logs(session: Session, follow: bool, lines: int, model: str | None, access: bool) -> None:
    """Print the log of a server on this machine."""
    if model is not None and access:
        raise click.UsageError("Give either --model or --access: the requests are not logged by model.")
    server = session.server
    if server is None:
        raise NoServer("Only the log of a server of yours on this machine can be read; this one is not.")
    path, mark = place_of(server, model, access)

    def wanted(line: str) -> bool:
        return mark is None or mark in line

    try:
        with path.open("rb") as file:
            for line in last_lines(file, lines, wanted):
                _write(session, path, line)
            if follow:
                alive = _liveness(server)
                for line in following(path, file, alive):
                    if wanted(line):
                        _write(session, path, line)
                session.out.note("The server has ended.")
    except FileNotFoundError:
        raise Failed(f"There is no log yet: {path} does not exist.") from None


def place_of(server: RunningServer, model: str | None, access: bool) -> tuple[Path, str | None]:
    """
    Return the file with a server's log, and what a line must have.

    :raise Failed: when there is no such file, with where the log goes.
    """
    mark = None if model is None else f"-{model}_"
    if server.log_directory is not None:
        name = "access_log.log" if access else "ts_log.log" if model is None else "model_log.log"
        return Path(server.log_directory) / name, mark
    if server.log_file is not None:
        # Requests are among the other lines there.
        return Path(server.log_file), "ACCESS_LOG" if access else mark
    where = "twistd's log" if server.hosted else "its standard output only (log_files=false)"
    raise Failed(f"The log of this server goes to {where}: read it there.")


def last_lines(file: IO[bytes], count: int, wanted: Callable[[str], bool]) -> list[str]:
    """Return the last wanted lines of a file, and leave it at the end of its last complete line."""
    kept: deque[str] = deque(maxlen=count)
    while line := file.readline(_MAX_LINE):
        if not line.endswith(b"\n") and len(line) < _MAX_LINE:
            file.seek(-len(line), os.SEEK_CUR)
            break
        text = _text(line)
        if wanted(text):
            kept.append(text)
    return list(kept)


def following(
    path: Path, file: IO[bytes], alive: Callable[[], bool], sleep: Callable[[float], object] = time.sleep
) -> Iterator[str]:
    """
    Yield the lines that are written to a file from now on, through its rotations.

    :param alive: Returns whether there may be more.
    """
    opened: list[IO[bytes]] = []
    try:
        while True:
            ending = not alive()
            yield from _complete_lines(file)
            if _replaced(path, file):
                with suppress(OSError):
                    opened.append(path.open("rb"))
                    file = opened[-1]
                    continue
            if ending:
                return
            sleep(_INTERVAL)
    finally:
        for each in opened:
            each.close()


def _complete_lines(file: IO[bytes]) -> Iterator[str]:
    if os.fstat(file.fileno()).st_size < file.tell():
        # Cut off by its owner, such as logrotate's copytruncate.
        file.seek(0)
    while line := file.readline(_MAX_LINE):
        if not line.endswith(b"\n") and len(line) < _MAX_LINE:
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield _text(line)


def _replaced(path: Path, file: IO[bytes]) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False


def _liveness(server: RunningServer) -> Callable[[], bool]:
    return lambda: start_of(server.pid) == server.started


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r\n")


def _write(session: Session, path: Path, line: str) -> None:
    if session.out.as_json:
        click.echo(json.dumps({"file": str(path), "line": line}))
    else:
        session.out.line(line)
