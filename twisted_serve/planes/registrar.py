# SPDX-License-Identifier: Apache-2.0
"""
Register and unregister model versions with their files and workers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from twisted_serve.archives.locating import Source
from twisted_serve.archives.safe_paths import confined_handler
from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.errors import BadRequest, InvalidModel, ServeError, ServiceUnavailable, WorkerFailed
from twisted_serve.interfaces.events import ModelFailed, ModelLoaded, Notify, ignore
from twisted_serve.models.installation import IInstaller, Installed
from twisted_serve.models.registry import fallback_name, valid_model_name, valid_model_version
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.models.snapshot import RecordedVersion
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.startup import reason_of
from twisted_serve.scheduling.pool import Pool

_T = TypeVar("_T")

_log = Logger("twisted_serve.planes")

# The runtimes that a manifest or a request may name; both use this server's interpreter.
RUNTIMES = ("python", "python3")


@frozen
class _Files:
    """
    The files made for a version, to be removed with it.

    :ivar installed: The installed packages; ``None`` if nothing was installed.
    """

    archive: ModelArchive
    installed: Installed | None = None


@frozen
class Registration:
    """
    A request to register a version; ``None`` stands for a parameter that the client omitted.

    :ivar url: The archive's location (``docs/torchserve/rest_api.md`` §8.2).
    :ivar synchronous: Whether the response waits for the workers.
    :ivar recorded: The version's record in the snapshot that is being restored.
    :ivar workflow: The workflow that the version is a node in.
    :ivar import_path: As `ModelVersion.import_path`.
    """

    url: str | None
    model_name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    settings: RequestedSettings = field(factory=RequestedSettings)
    synchronous: bool = True
    recorded: RecordedVersion | None = None
    workflow: str | None = None
    import_path: tuple[str, ...] = ()


#: Resolve a version's settings from the request, the archive, the name, the version, and whether at start-up.
Settle = Callable[[RequestedSettings, ModelArchive, str, str, bool], ModelSettings]

#: Make the worker pool of a version; the pool has no workers until it is started or scaled.
MakePool = Callable[[ModelVersion], Pool]


class Registrar:
    """
    Adds versions to the catalogue and removes them completely, with their files and workers.

    :param retire_timeout: Seconds that work in flight has when its version is unregistered.
    :param installer: Installs the packages that models require; ``None`` if installing is off
        (``install_py_dep_per_model``).
    :ivar notify: Told of models that have loaded or failed to load.
    :ivar changed: Called when a change is complete or undone; its Deferred fires when the change is recorded.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: ModelStore,
        settle: Settle,
        make_pool: MakePool,
        default_handler: str | None,
        retire_timeout: float,
        installer: IInstaller | None = None,
        changed: Callable[[], Deferred[None]] = lambda: succeed(None),
        notify: Notify = ignore,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._settle = settle
        self._make_pool = make_pool
        self._default_handler = default_handler
        self._retire_timeout = retire_timeout
        self._installer = installer
        self.changed = changed
        self.notify = notify
        self._files: dict[tuple[str, str], _Files] = {}
        self._under_way: set[Deferred[Any]] = set()

    async def enter(self, wanted: Registration, url: str, source: Source = Source.CLIENT) -> ModelVersion:
        """
        Register a version, without workers yet.

        A failure leaves nothing of the version behind.

        :param source: Where ``url`` was specified, which decides what it may refer to.
        :raise ServeError: as :meth:`ModelStore.open`, :meth:`Registry.register` and :meth:`IInstaller.install`.
        :raise ServiceUnavailable: if the server is stopping.
        """
        archive = await self.unless_stopped(self._store.open(url, source))
        return await self.enter_archive(wanted, archive, at_startup=source in (Source.OPERATOR, Source.SNAPSHOT))

    async def enter_archive(
        self, wanted: Registration, archive: ModelArchive, at_startup: bool = False
    ) -> ModelVersion:
        """
        Register a version from an open archive, which is discarded with the version or if registering fails.

        :raise ServeError: as :meth:`enter`.
        """
        files = _Files(archive)
        try:
            if self._catalogue.stopping:
                raise _stopping()
            model = self._version_of(wanted, archive, at_startup)
            # Checked before pip runs, so that a conflict is reported without waiting for pip.
            self._catalogue.registry.register(model)
            for warning in archive.warnings:
                _log.warn("Model {name}: {warning}", name=model.name, warning=warning)
            installed = await self._install(model)
            if installed is not None:
                files = evolve(files, installed=installed)
                model = evolve(model, python=installed.python, packages=installed.packages)
            if self._catalogue.stopping:
                raise _stopping()
            self._catalogue.add(model, self._make_pool(model))
        except BaseException:
            await self._discard(files)
            raise
        self._files[model.name, model.version] = files
        return model

    async def start(self, model: ModelVersion) -> None:
        """
        Start the workers of a registered version and wait for them; any failure unregisters the version.

        :raise WorkerFailed: if a worker cannot be started.
        """
        try:
            await self._load(model)
        except WorkerFailed as e:
            log_failed(model, e)
            await self.forget(model)
            raise not_started(e, model.name, model.version) from e
        except BaseException:
            await self.forget(model)
            raise

    async def begin(self, model: ModelVersion) -> None:
        """
        Start the workers of a version in the background, with no client waiting.

        If workers fail, the version stays and they are restarted, as in TorchServe; any other exception unregisters
        the version.

        :raise WorkerFailed: if a worker cannot be started.
        """
        try:
            await self._load(model)
        except WorkerFailed:
            raise
        except BaseException:
            await self.forget(model)
            raise

    async def _load(self, model: ModelVersion) -> None:
        """Start the workers of a version, and tell how that ended unless the version is being removed."""
        pool = self._catalogue.pool_of(model)
        try:
            await pool.start()
        except ServeError as e:
            if not self._catalogue.stopping and self._catalogue.has(model):
                self.notify(ModelFailed(model.name, model.version, reason_of(e)))
            raise
        self.notify(ModelLoaded(model.name, model.version))

    async def record(self, model: ModelVersion, complete: bool = True) -> None:
        """
        Report a registration and wait until it is recorded; an exception unregisters the version.

        :param complete: Whether all workers of the version are loaded.
        """
        try:
            await (self.arrived(model) if complete else self.changed())
        except BaseException:
            await self.forget(model)
            raise

    def arrived(self, model: ModelVersion) -> Deferred[None]:
        """
        Record that a version is complete: a start-up model with its name or location is no longer missing.

        :return: As `changed`.
        """
        missing = self._catalogue.missing.items()
        self._catalogue.missing = {name: url for name, url in missing if model.name != name and model.url != url}
        return self.changed()

    async def forget(self, model: ModelVersion) -> None:
        """Unregister exactly this version, even the default one; another registered in its place since then is kept."""
        pool = self._catalogue.forget(model)
        if pool is not None:
            try:
                # Another change may have been recorded while the version was registered.
                recorded = self.changed()
            finally:
                await self.give_up(model, pool)
            await recorded

    async def unregister(self, name: str, version: str | None) -> None:
        """
        Unregister a version: finish its work in flight, refuse its queued requests, remove its files.

        :raise ServeError: as :meth:`Registry.unregister`.
        """
        model, pool = self._catalogue.remove(name, version)
        try:
            # First, because no snapshot may name an archive that is removed with its version.
            recorded = self.changed()
        finally:
            await self.give_up(model, pool)
        await recorded

    async def unless_stopped(self, work: Coroutine[Deferred[Any], Any, _T]) -> _T:
        """
        Wait for a part of a registration; stopping the server cancels it.

        :raise ServiceUnavailable: if the server is stopped meanwhile.
        """
        under_way = Deferred.fromCoroutine(work)
        self._under_way.add(under_way)
        try:
            return await under_way
        except CancelledError as e:
            raise _stopping() from e
        finally:
            self._under_way.discard(under_way)

    def stop(self) -> None:
        """Cancel all registrations in progress."""
        for registering in list(self._under_way):
            registering.cancel()

    async def give_up(self, model: ModelVersion, pool: Pool) -> None:
        """Retire the workers of an unregistered version and remove its files."""
        # Taken first: another version may have the same name when the workers have terminated.
        files = self._files.pop((model.name, model.version))
        try:
            await pool.retire(self._retire_timeout)
        finally:
            await self._discard(files)

    async def _install(self, model: ModelVersion) -> Installed | None:
        if self._installer is not None:
            return await self.unless_stopped(self._installer.install(model))
        if model.manifest.requirements_file is not None or model.config.use_venv:
            _log.warn(
                "Model {name}: nothing is installed for it, because install_py_dep_per_model is false", name=model.name
            )
        return None

    async def _discard(self, files: _Files) -> None:
        try:
            if self._installer is not None and files.installed is not None:
                await self._installer.remove(files.installed)
        finally:
            await self._store.discard(files.archive)

    def _version_of(self, wanted: Registration, archive: ModelArchive, at_startup: bool) -> ModelVersion:
        manifest = archive.manifest
        name = wanted.model_name or manifest.model_name or (fallback_name(archive.url) if at_startup else None)
        if not name:
            raise InvalidModel("Model name is not defined.")
        if wanted.handler and wanted.recorded is None:
            # A snapshot may name the operator's default_service_handler, which may lie outside the archive.
            confined_handler(archive.model_dir, wanted.handler, manifest.links, "Parameter")
        handler = wanted.handler or manifest.handler or self._default_handler
        if not handler:
            raise InvalidModel(f"Model {name} names no handler, and there is no default_service_handler.")
        runtime = wanted.runtime or manifest.runtime
        if runtime not in RUNTIMES:
            raise InvalidModel(f"Model {name} needs the runtime {runtime}, which this server does not have.")
        recorded = wanted.recorded
        if recorded is not None and recorded.version != manifest.model_version:
            _log.warn(
                "The archive of model {name} has version {version}, and is served so; the snapshot says {recorded}",
                name=name,
                version=manifest.model_version,
                recorded=recorded.version,
            )
        settings = self._settle(wanted.settings, archive, name, manifest.model_version, at_startup)
        return ModelVersion(
            name=valid_model_name(name),
            version=valid_model_version(manifest.model_version),
            url=archive.url if recorded is None else recorded.url or archive.url,
            location=None if archive.files is None else archive.files.location,
            model_dir=archive.model_dir,
            manifest=manifest,
            config=archive.config,
            handler=handler,
            settings=settings if recorded is None else recorded.applied_to(settings),
            runtime=runtime,
            loaded_at_startup=at_startup,
            workflow=wanted.workflow,
            import_path=wanted.import_path,
        )


def refuse_signed(s3_sse_kms: bool) -> None:
    """
    Check that a client does not ask for a signed download (``s3_sse_kms``).

    :raise BadRequest: if the client does.
    """
    if s3_sse_kms:
        raise BadRequest("Parameter s3_sse_kms: signed downloads are not supported.")


def _stopping() -> ServiceUnavailable:
    return ServiceUnavailable("The server is stopping.")


def not_started(error: WorkerFailed, name: str, version: str) -> WorkerFailed:
    """Return the error for a version whose workers failed to start."""
    status = 507 if error.status == 507 else 500
    return WorkerFailed(status, f"Failed to start workers for model {name} version: {version}").because(
        error.reason or error.message
    )


def log_failed(model: ModelVersion, error: ServeError, again: bool = True) -> None:
    """
    Log that workers failed to start.

    :param again: Whether to log the reason even if the traceback is already in the model's log. Scripts that count
        attempts by the exception's name there, as a test of TorchServe does, must find it once per attempt.
    """
    printed = isinstance(error, WorkerFailed) and error.printed
    _log.error(
        "Workers of model {name} version {version} failed: {error}",
        name=model.name,
        version=model.version,
        error=error if again or not printed else "why is in the model's log",
    )
