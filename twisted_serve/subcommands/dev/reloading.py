# SPDX-License-Identifier: Apache-2.0
"""
Run a server that loads a model again when its files change.

Each attempt is a version of its own: it becomes the default version when its workers have loaded, and then the version
before is unregistered, which finishes what it has accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_serve.archiver.config import ArchiverError
from twisted_serve.archives.removal import remove_tree
from twisted_serve.config.addresses import Address
from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.listening.roles import Role
from twisted_serve.planes.startup import reason_of
from twisted_serve.service import ModelServer
from twisted_serve.subcommands.dev.project import Project
from twisted_serve.subcommands.dev.watching import Stamp, Watch, stamps_of

_log = Logger("twisted_serve.server")

#: Seconds from one look at the files to the next.
INTERVAL = 0.25

# What a handler's author may not know, when loading fails at a value that is None.
_CALLED_AT_LOAD = (
    "A handler that is a function is called once with data=None when it is loaded, to load its model: "
    "`if data is None: return`."
)


@frozen
class Attempt:
    """
    The files of one attempt to load the model.

    :ivar version: Its number, from 1.
    :ivar stamps: The stamps of the files from before they were read.
    :ivar directory: The model's directory.
    :ivar warnings: Doubtful findings.
    :ivar error: Why they cannot be loaded; ``None`` if nothing is known against it.
    """

    version: str
    directory: Path
    stamps: Mapping[Path, Stamp]
    warnings: tuple[str, ...] = ()
    error: str | None = None


class DevServer:
    """
    A server of one model, for `twisted_serve.command.run.run_server`.

    :ivar ready: Never fires: the author is told by ``ready_with``, which a model that does not load delays.
    :ivar started: Whether the server listens.
    :param directory: Where the models' directories are made.
    :param workers: The number of workers.
    :param ready_with: Called when the first version has loaded.
    :param tell: Called with each line for the author.
    """

    def __init__(
        self,
        server: ModelServer,
        clock: IReactorTime,
        project: Project,
        directory: Path,
        workers: int,
        ready_with: Callable[[ModelServer], None],
        tell: Callable[[str], None],
        defer_to_thread: DeferToThread,
    ) -> None:
        self.ready: Deferred[object] = Deferred()
        self.started = False
        self._server = server
        self._clock = clock
        self._project = project
        self._directory = directory
        self._workers = workers
        self._ready_with = ready_with
        self._tell = tell
        self._defer_to_thread = defer_to_thread
        self._watch = Watch()
        self._attempts = 0
        self._serving: Attempt | None = None
        self._stopping = False
        self._warned: set[str] = set()
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def startService(self) -> None:
        """Listen, and begin to load the model."""
        self._server.startService()
        self.started = True
        self._looking.start(INTERVAL)

    def stopService(self) -> Deferred[None]:
        """Stop looking at files, cancel a running attempt, and stop the server."""
        self._stopping = True
        if self._looking.running:
            self._looking.stop()
        return self._server.stopService()

    def hurry(self) -> None:
        """Cancel the requests in flight."""
        self._server.hurry()

    def reload(self) -> None:
        """Write the key file again."""
        self._server.reload()

    @property
    def addresses(self) -> dict[Role, Address]:
        """The bound HTTP address of each role, once started."""
        return self._server.addresses

    @property
    def grpc_addresses(self) -> dict[Role, Address]:
        """The same for gRPC."""
        return self._server.grpc_addresses

    @property
    def secrets(self) -> Collection[str]:
        """The secrets to redact in the log."""
        return self._server.secrets

    def _look(self) -> Deferred[None]:
        """Look at the files once; no error ends the watch."""
        return Deferred.fromCoroutine(self._look_once()).addErrback(
            lambda failure: None if self._stopping else _log.failure("Loading failed", failure)
        )

    async def _look_once(self) -> None:
        changed: tuple[Path, ...] = ()
        if self._attempts:
            seen = await self._defer_to_thread(stamps_of, tuple(self._watch.known))
            changed = self._watch.look(seen, self._clock.seconds())
            if not changed:
                return
            self._tell(f"{_named(changed)} changed: loading.")
        else:
            self._tell(f"Loading {self._project.config.handler}.")
        self._attempts += 1
        attempt = await self._defer_to_thread(self._prepare, str(self._attempts))
        self._watch.begin(attempt.stamps)
        for warning in attempt.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._tell(f"Warning: {warning}")
        error = attempt.error
        if error is None:
            try:
                await self._load(attempt)
            except ServeError as e:
                error = reason_of(e) if e.reason is None else e.reason
        if self._stopping:
            return
        if error is None:
            serving, self._serving = self._serving, attempt
            # Without the directory: a module that appears there is not one that the model imports.
            directory = self._project.directory
            self._watch.begin({path: stamp for path, stamp in attempt.stamps.items() if path != directory})
            if serving is None:
                self._ready_with(self._server)
            else:
                self._tell(f"Version {attempt.version} answers.")
                Deferred.fromCoroutine(self._drop(serving)).addErrback(_ignore)
            return
        self._tell(error)
        if "NoneType" in error and self._project.handler.path is not None:
            self._tell(_CALLED_AT_LOAD)
        self._tell(
            "Nothing answers yet; the next change is tried."
            if self._serving is None
            else f"Version {self._serving.version} goes on answering; the next change is tried."
        )
        await self._defer_to_thread(remove_tree, attempt.directory)

    def _prepare(self, version: str) -> Attempt:
        """Lay the files out; blocking."""
        directory = self._directory / version
        stamps = stamps_of({*self._project.named(), self._project.directory, *self._watch.known})
        warnings: list[str] = []
        try:
            files = self._project.collect(warnings.append)
            stamps = stamps_of({*files.values(), self._project.directory})
            self._project.lay_out(files, directory, version)
        except (ArchiverError, OSError) as e:
            return Attempt(version, directory, stamps, tuple(warnings), str(e))
        return Attempt(version, directory, stamps, tuple(warnings))

    async def _load(self, attempt: Attempt) -> None:
        name = self._project.config.model_name
        await self._server.register(attempt.directory, name=name, workers=self._workers)
        if self._serving is not None:
            await self._server.set_default(name, attempt.version)

    async def _drop(self, attempt: Attempt) -> None:
        """Finish what a version has accepted, and remove the version with its files."""
        await self._server.unregister(self._project.config.model_name, version=attempt.version)
        await self._defer_to_thread(remove_tree, attempt.directory)


def _ignore(failure: object) -> None:
    """Ignore that a version could not be dropped: the server is stopping, and drops it."""


def _named(paths: tuple[Path, ...]) -> str:
    names = [path.name for path in paths[:3]]
    return (
        ", ".join(names)
        + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        + (" has" if len(paths) == 1 else " have")
    )
