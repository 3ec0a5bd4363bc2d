# SPDX-License-Identifier: Apache-2.0
"""
Record where a running server is, for the sub-commands of its user: addresses, key file, logs; no secret.

Each server has a file with its pid as the name, in a directory of its user.  The file of a process that has ended is
ignored and removed; a process is recognised by its start time too, since pids are used again.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from attrs import asdict, field, fields, frozen
from attrs.validators import deep_mapping, instance_of, optional

from twisted_serve.command.private_directory import opened, places

#: The format of the file; a reader ignores the files of others.
FORMAT = 1

# In bytes; a run file has about 1000, and no more than this is read.
_MAX_BYTES = 65536

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_words = deep_mapping(instance_of(str), instance_of(str), instance_of(dict))


@frozen
class RunningServer:
    """
    A running server, as its run file describes it.

    :ivar started: The start of the process, as `start_of` tells it.
    :ivar namespace: The processes among which the pid is counted, which differ between containers.
    :ivar directory: The directory in which the server was started.
    :ivar addresses: The HTTP address of each role: ``inference``, ``management``, ``metrics``.
    :ivar grpc_addresses: The same for gRPC.
    :ivar key_file: The key file; ``None`` without token authorization.
    :ivar given_keys: The file of each key that the operator gives, by its kind; the key file lacks these keys.
    :ivar log_directory: The directory of the log files; ``None`` if the server writes none.
    :ivar log_file: The file that the server's standard output goes to, if it goes to a file.
    :ivar certificate: The file with the certificate of the https listeners, if there are any.
    :ivar hosted: Whether the process is ``twistd``'s, which has the log.
    """

    pid: int = field(validator=instance_of(int))
    started: str = field(validator=instance_of(str))
    namespace: str = field(validator=instance_of(str))
    version: str = field(validator=instance_of(str))
    directory: str = field(validator=instance_of(str))
    addresses: dict[str, str] = field(validator=_words)
    grpc_addresses: dict[str, str] = field(factory=dict, validator=_words)
    key_file: str | None = field(default=None, validator=optional(instance_of(str)))
    given_keys: dict[str, str] = field(factory=dict, validator=_words)
    log_directory: str | None = field(default=None, validator=optional(instance_of(str)))
    log_file: str | None = field(default=None, validator=optional(instance_of(str)))
    certificate: str | None = field(default=None, validator=optional(instance_of(str)))
    hosted: bool = field(default=False, validator=instance_of(bool))


class Writer(Protocol):
    """Writes and removes the run file of this process, as `RunFile` does."""

    def write(self, server: RunningServer) -> None:
        """:raise OSError: when it cannot be written."""

    def remove(self) -> None:
        """Remove the file, if it was written."""


class RunFile:
    """
    The run file of this process.

    :param environ: The environment, for ``XDG_RUNTIME_DIR``.
    """

    def __init__(self, environ: Mapping[str, str], temporary: Path | None = None) -> None:
        self._environ = environ
        self._temporary = temporary
        self._written: tuple[Path, str] | None = None

    def write(self, server: RunningServer) -> None:
        """
        Write the file, readable by its owner only, atomically.

        :raise OSError: when it cannot be written, or the directory cannot be trusted.
        """
        place = places(self._environ, self._temporary or Path(tempfile.gettempdir()))[0]
        name = f"{server.pid}.json"
        fresh = f".{name}.{secrets.token_hex(8)}"
        with opened(place, make=True) as directory:
            descriptor = os.open(fresh, _WRITE, 0o600, dir_fd=directory)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    json.dump({"format": FORMAT, **asdict(server)}, file, indent=2)
                os.replace(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(fresh, dir_fd=directory)
                raise
        self._written = (place, name)

    def remove(self) -> None:
        """Remove the file, if it was written; do nothing in a process that was forked since."""
        written, self._written = self._written, None
        if written is not None and written[1] == f"{os.getpid()}.json":
            with suppress(OSError), opened(written[0]) as directory:
                os.unlink(written[1], dir_fd=directory)


def running_servers(
    environ: Mapping[str, str], temporary: Path | None = None, processes: Path = Path("/proc")
) -> tuple[list[RunningServer], list[str]]:
    """
    Return the running servers of this user in the order of their pids, and remove the files of ended ones.

    :param processes: The kernel's directory of processes.
    :return: The servers, and why a directory was not read.
    """
    servers: dict[int, RunningServer] = {}
    problems = []
    here = namespace(processes)
    for place in places(environ, temporary or Path(tempfile.gettempdir())):
        try:
            with opened(place) as directory:
                for name in os.listdir(directory):
                    server = _read(name, directory)
                    if server is None or server.namespace != here:
                        continue
                    if start_of(server.pid, processes) == server.started:
                        servers[server.pid] = server
                    else:
                        with suppress(OSError):
                            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError as e:
            problems.append(f"{e.filename or place}: {e.strerror}")
    return [servers[pid] for pid in sorted(servers)], problems


def _read(name: str, directory: int) -> RunningServer | None:
    """Return the server of a file; ``None`` for a file of another owner, format or kind."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        descriptor = os.open(name, _READ, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return None
            said: Any = json.loads(file.read(_MAX_BYTES))
        if isinstance(said, dict) and said.get("format") == FORMAT and name == f"{said.get('pid')}.json":
            # A newer server may say more.
            known = {each.name for each in fields(RunningServer)}
            return RunningServer(**{key: value for key, value in said.items() if key in known})
    return None


def start_of(pid: int, processes: Path = Path("/proc")) -> str | None:
    """Return the boot of the machine and the start of a process in ticks since then; ``None`` if there is none."""
    try:
        boot = (processes / "sys/kernel/random/boot_id").read_text().strip()
        status = (processes / str(pid) / "stat").read_text()
    except (OSError, ValueError):
        return None
    # The name of the program, in parentheses, may have blanks and parentheses; the start is the 22nd field.
    after = status.rpartition(")")[2].split()
    return f"{boot} {after[19]}" if len(after) > 19 and after[0] not in ("Z", "X") else None


def namespace(processes: Path = Path("/proc")) -> str:
    """Return the name of the processes among which pids are counted here."""
    try:
        return os.readlink(processes / "self/ns/pid")
    except OSError:
        return ""
