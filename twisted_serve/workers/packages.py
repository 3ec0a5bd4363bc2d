# SPDX-License-Identifier: Apache-2.0
"""
Install a model's Python packages with pip, in a separate process.

The packages go to a new directory below the server's working directory, one for each registration: models from the same
archive do not share it, and it is removed if the installation fails.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from twisted_serve.archives.extraction import Saving
from twisted_serve.archives.removal import remove_tree
from twisted_serve.archives.safe_paths import confined
from twisted_serve.errors import NotInstalled, ServiceUnavailable
from twisted_serve.eventloop.threads import DeferToThread, abandonable
from twisted_serve.interfaces import IServeReactor
from twisted_serve.logs import log_model_output
from twisted_serve.models.installation import IInstaller, Installed
from twisted_serve.models.version import ModelVersion
from twisted_serve.system.descendants import kill_group
from twisted_serve.wire.held_back import held_back
from twisted_serve.workers.process.launch import import_environment
from twisted_serve.workers.process.process import OUTPUT_WAIT, Exit, Stream, WorkerProcess

_log = Logger("twisted_serve.workers")

# How many lines of pip's output an error message has, and how many characters of each.
_LAST_LINES = 10
_LONGEST = 300

# The entries of an installation's directory: one of the first two, and two that only the installation uses.
_VENV, _PACKAGES, _TEMPORARY, _EMPTY = "venv", "packages", "tmp", "empty"


@frozen
class Needs:
    """
    The installation that a model asks for.

    :ivar requirements: The requirements file for pip; ``None`` for none.
    :ivar venv: Whether the model gets a virtual environment; otherwise it gets a directory of packages.
    """

    requirements: Path | None
    venv: bool

    @classmethod
    def of(cls, model: ModelVersion) -> Needs | None:
        """
        Read the needs from a model's manifest and configuration; ``None`` if nothing is to be installed.

        :raise NotInstalled: if the requirements file does not exist.
        :raise InvalidModel: if the requirements file is outside the model's directory.
        """
        name = model.manifest.requirements_file
        venv = bool(model.config.use_venv)
        if name is None:
            return cls(None, venv) if venv else None
        requirements = confined(model.model_dir, "requirementsFile", name, model.manifest.links)
        if not requirements.is_file():
            raise _failed(model, f"Manifest entry requirementsFile is {name!r:.200}, and there is no such file.")
        return cls(requirements, venv)


class _Pip:
    """
    One pip process, from its start until it has exited and its output is closed.

    :ivar ended: A Deferred that fires then with the exit status.
    :ivar last_lines: The last lines of its output.
    """

    def __init__(self, reactor: IServeReactor, log: Logger, name: str) -> None:
        self.ended: Deferred[Exit] = Deferred()
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.process = WorkerProcess(self._printed, self._exited, self._output_closed)
        self._reactor = reactor
        _log = log
        self._name = name
        self._exit: Exit | None = None
        self._wait: IDelayedCall | None = None

    def kill(self) -> None:
        """Kill the process and everything that it has started."""
        pid = self.process.transport.pid
        if self._exit is None and pid is not None:
            # The process leads a group of this number, or will soon; until then it has started no other process.
            kill_group(pid)
        self.process.kill()

    def _printed(self, stream: Stream, line: str) -> None:
        log_model_output(_log, self._name, stream, line)
        if line.strip():
            self.last_lines.append(line[:_LONGEST])

    def _exited(self, how: Exit) -> None:
        self._exit = how
        self._wait = self._reactor.callLater(OUTPUT_WAIT, self.process.close_output)

    def _output_closed(self) -> None:
        if self._wait is not None and self._wait.active():
            self._wait.cancel()
        self.ended.callback(self._exit or Exit(None, None))


@implementer(IInstaller)
class Installer:
    """
    An installer of models' packages.

    :param work_dir: The server's working directory.
    :param python: The interpreter that workers run in.
    :param environment: The environment of pip: the variables that workers may see.
    :param timeout: Seconds that an installation may take.
    :param made: Called in a thread with each new installation directory.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        work_dir: Path,
        python: str,
        environment: Mapping[str, str],
        timeout: float,
        defer_to_thread: DeferToThread,
        made: Callable[[Path], None] = lambda directory: None,
    ) -> None:
        self._reactor = reactor
        self._made = made
        self._root = work_dir / "packages"
        self._python = python
        self._environment = environment
        self._timeout = timeout
        self._defer_to_thread = defer_to_thread
        self._under_way: dict[_Pip, Deferred[None]] = {}
        self._stopped = False

    async def install(self, model: ModelVersion) -> Installed | None:
        """
        Install a model's packages; cancelling kills pip and removes the directory.

        :return: The installation; ``None`` if the model needs none.
        :raise InvalidModel: as `Needs.of`.
        :raise NotInstalled: if pip fails or takes too long, or as `Needs.of`.
        :raise InternalError: if the directory cannot be made.
        :raise ServiceUnavailable: if the server is stopping.
        """
        needs = Needs.of(model)
        if needs is None:
            return None
        place = self._root / uuid4().hex
        making = self._defer_to_thread(_make, place, self._made)
        await abandonable(making, lambda _: self._defer_to_thread(remove_tree, place))
        if self._stopped:
            await self._defer_to_thread(remove_tree, place)
            raise ServiceUnavailable("The server is stopping.")
        try:
            pip = self._start(model, needs, place)
        except BaseException as e:
            await self._defer_to_thread(remove_tree, place)
            if isinstance(e, OSError):
                raise _failed(model, f"It could not be started: {e}") from e
            raise
        try:
            ended = abandonable(pip.ended, lambda _: self._defer_to_thread(remove_tree, place))
            how = await ended.addTimeout(self._timeout, self._reactor)
        except CancelledError:
            pip.kill()
            raise
        except TookTooLong:
            pip.kill()
            raise _failed(model, f"It took more than {self._timeout:g} seconds.") from None
        if how.code != 0:
            await self._defer_to_thread(remove_tree, place)
            raise _failed(model, "\n".join(pip.last_lines) or str(how))
        try:
            await self._defer_to_thread(remove_tree, place / _TEMPORARY)
        except BaseException:
            await self._defer_to_thread(remove_tree, place)
            raise
        _log.info("Installed custom pip packages for model {model}", model=model.name)
        if needs.venv:
            return Installed(place, python=str(place / _VENV / "bin" / "python"))
        return Installed(place, packages=place / _PACKAGES)

    async def remove(self, installed: Installed) -> None:
        """Remove the installation of a model that was unregistered."""
        await self._defer_to_thread(remove_tree, installed.place)

    async def stop(self) -> None:
        """Kill running installations and wait for their end."""
        self._stopped = True
        for pip in self._under_way:
            pip.kill()
        await DeferredList(list(self._under_way.values()))

    def _start(self, model: ModelVersion, needs: Needs, place: Path) -> _Pip:
        pip = _Pip(self._reactor, _log, f"pip-{model.name}_{model.version}")
        command = [self._python, "-m", "twisted_serve.backend.installation"]
        command += ["--parent", str(os.getpid()), "--model-dir", str(model.model_dir)]
        command += ["--venv", str(place / _VENV)] if needs.venv else ["--target", str(place / _PACKAGES)]
        if needs.requirements is not None:
            command += ["--requirements", str(needs.requirements)]
        # Temporary files that a killed pip leaves behind are removed with the directory.
        environment = import_environment(self._environment) | {"TMPDIR": str(place / _TEMPORARY)}
        devnull = os.open(os.devnull, os.O_RDONLY)
        try:
            with held_back():
                self._reactor.spawnProcess(
                    pip.process,
                    self._python,
                    command,
                    env=environment,
                    path=str(place / _EMPTY),
                    childFDs={0: devnull, 1: "r", 2: "r"},
                )
        except BaseException:
            if pip.process.connected:
                pip.kill()
            raise
        finally:
            os.close(devnull)
        self._under_way[pip] = Deferred()
        pip.ended.addCallback(self._ended, pip)
        return pip

    def _ended(self, how: Exit, pip: _Pip) -> Exit:
        self._under_way.pop(pip).callback(None)
        return how


def _failed(model: ModelVersion, reason: str) -> NotInstalled:
    return NotInstalled(f"Custom pip package installation failed for model {model.name}").because(reason)


def _make(place: Path, made: Callable[[Path], None]) -> None:
    with Saving(place.name):
        place.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            for directory in (place, place / _EMPTY, place / _TEMPORARY):
                directory.mkdir(mode=0o700)
            made(place)
        except OSError:
            remove_tree(place)
            raise
