# SPDX-License-Identifier: Apache-2.0
"""
This module implements the management of models: register, describe, scale, unregister, choose the default.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.errors import (
    BadRequest,
    InvalidModel,
    MethodNotAllowed,
    ServeError,
    ServiceUnavailable,
    WorkerFailed,
)
from twisted_serve.logs import MODEL_LOADED, MODEL_NOT_LOADED
from twisted_serve.models.registry import fallback_name, valid_model_name, valid_model_version
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.models.snapshot import RecordedVersion
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.describing import describe, pids
from twisted_serve.planes.memory import Memory
from twisted_serve.workers.installation import Installed, Installer
from twisted_serve.workers.pool import Pool

_T = TypeVar("_T")

# The runtimes that a manifest or a request may name; both run in this server's interpreter.
RUNTIMES = ("python", "python3")

IN_PROGRESS = "Processing worker updates..."

# More workers than this are a slip of the keyboard, and would be the end of the machine.
MOST_WORKERS = 1024


@frozen
class Outcome:
    """
    What became of a change.

    :ivar status: 200 when it is done, 202 when it goes on, 206 when it is done in part.
    """

    status: int
    text: str


@frozen
class _Files:
    """
    What was made for a version, and is to go with it.

    :ivar installed: ``None`` if nothing was installed for it.
    """

    archive: ModelArchive
    installed: Installed | None = None


@frozen
class Registration:
    """
    What a client asks to be registered; ``None`` is for what it left open.

    :ivar url: Where the archive is (``spec/rest_api.md`` §8.2).
    :ivar synchronous: Whether the answer waits for the workers.
    :ivar recorded: The version as a snapshot has it, when it is restored.
    """

    url: str | None
    model_name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    settings: RequestedSettings = field(factory=RequestedSettings)
    synchronous: bool = True
    recorded: RecordedVersion | None = None


#: Weighs all sources of a version's settings: the request, the archive, and the name, the version, whether at start-up.
Settle = Callable[[RequestedSettings, ModelArchive, str, str, bool], ModelSettings]

#: Makes the workers' pool of a version; it has none until it is scaled.
MakePool = Callable[[ModelVersion], Pool]


class ManagementPlane:
    """
    What clients of the management listener can ask for.

    :param enabled: Whether models may come and go over the API (``enable_model_api``).
    :param retire_timeout: Seconds that running work has when its version is unregistered.
    :param installer: Installs what models need; ``None`` if nothing is to be installed (``install_py_dep_per_model``).
    :param changed: Called when a change is complete, or has been undone.
    """

    _log = Logger()

    def __init__(
        self,
        catalogue: Catalogue,
        store: ModelStore,
        settle: Settle,
        make_pool: MakePool,
        enabled: bool,
        default_handler: str | None,
        retire_timeout: float,
        memory: Memory,
        installer: Installer | None = None,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._settle = settle
        self._make_pool = make_pool
        self._enabled = enabled
        self._default_handler = default_handler
        self._retire_timeout = retire_timeout
        self._memory = memory
        self._installer = installer
        self._changed = changed
        self._files: dict[tuple[str, str], _Files] = {}
        self._under_way: set[Deferred[Any]] = set()

    def check_enabled(self) -> None:
        """
        Go on only if models may come and go over the API.

        :raise MethodNotAllowed: if they may not.
        """
        if not self._enabled:
            raise MethodNotAllowed()

    async def register(self, wanted: Registration) -> Outcome:
        """
        Register a version and start its workers.

        Whatever fails, nothing of it stays: no version, no worker, no file.

        :raise MethodNotAllowed: if the model API is off.
        :raise BadRequest: for a parameter that cannot be.
        :raise ServeError: as :meth:`ModelStore.open`, :meth:`Registry.register` and :meth:`Installer.install`.
        :raise ServiceUnavailable: if the server is stopping.
        :raise WorkerFailed: if the workers cannot be started.
        """
        self.check_enabled()
        if wanted.url is None:
            raise BadRequest("Parameter url is required.")
        if wanted.runtime is not None and wanted.runtime not in RUNTIMES:
            raise BadRequest(f"Invalid RuntimeType value: {wanted.runtime}")
        if (wanted.settings.initial_workers or 0) > MOST_WORKERS:
            raise BadRequest(
                f"initial_workers must be from 0 to {MOST_WORKERS}, not {wanted.settings.initial_workers}."
            )
        model = await self._enter(wanted, wanted.url, at_startup=False)
        pool = self._catalogue.pool_of(model)
        if model.settings.min_workers == 0:
            self._changed()
            return Outcome(
                200,
                f'Model "{model.name}" Version: {model.version} registered with 0 initial workers. '
                + (
                    f"The first request starts one, and there may be up to {model.settings.max_workers}."
                    if model.settings.max_workers
                    else "Use scale workers API to add workers for the model."
                ),
            )
        scaling = pool.start()
        if not wanted.synchronous:
            self._watch(scaling, model)
            return Outcome(202, IN_PROGRESS)
        try:
            await scaling
        except WorkerFailed as e:
            self._log_failed(model, e)
            # Somebody may have unregistered it while it was loading, and registered another in its place.
            if self._catalogue.forget(model):
                # Another change may have been recorded while it was there.
                self._changed()
                await self._give_up(model, pool)
            raise _not_started(e, model.name, model.version) from e
        self._changed()
        return Outcome(
            200,
            f'Model "{model.name}" Version: {model.version} registered with '
            f"{model.settings.min_workers} initial workers",
        )

    async def load_at_startup(self, name: str | None, url: str) -> Deferred[None] | None:
        """
        Register a model of the start-up list; a failure is logged and the server goes on.

        :return: Fires when its workers are loaded or have failed to; ``None`` if there are none to come.
        """
        return await self._load(Registration(url=url, model_name=name), url)

    async def restore(self, recorded: RecordedVersion) -> Deferred[None] | None:
        """Register a version of a snapshot; as `load_at_startup`."""
        url = recorded.mar_name
        wanted = Registration(url, recorded.name, recorded.handler, recorded.runtime, recorded=recorded)
        settled = await self._load(wanted, url)
        if recorded.default:
            # It has not come if it could not be loaded.
            with suppress(ServeError):
                self.set_default(recorded.name, recorded.version)
        return settled

    async def _load(self, wanted: Registration, url: str) -> Deferred[None] | None:
        self._log.info("Loading initial models: {url}", url=url)
        try:
            model = await self._enter(wanted, url, at_startup=True)
        except ServeError as e:
            self._log.warn(MODEL_NOT_LOADED + ": {error}", url=url, error=e)
            return None
        except Exception:
            # A defect, met in one model, is no reason to leave out those after it.
            self._log.failure(MODEL_NOT_LOADED, url=url)
            return None
        if model.settings.min_workers == 0:
            return None
        pool = self._catalogue.pool_of(model)
        self._watch(pool.start(), model, at_startup=True)
        return pool.settled

    async def unregister(self, name: str, version: str | None) -> Outcome:
        """
        Take a version away: its running work is finished, what waits is refused, its files are removed.

        :raise MethodNotAllowed: if the model API is off.
        :raise ServeError: as :meth:`Registry.unregister`.
        """
        self.check_enabled()
        model, pool = self._catalogue.remove(name, version)
        # Now, because no snapshot must name an archive that goes with its version.
        self._changed()
        await self._give_up(model, pool)
        return Outcome(200, f'Model "{name}" unregistered')

    async def scale(
        self, name: str, version: str | None, min_worker: int, max_worker: int | None, synchronous: bool
    ) -> Outcome:
        """
        Change how many workers a version has.

        :param max_worker: ``None`` for as many as ``min_worker``.
        :raise BadRequest: for numbers that cannot be.
        :raise ServeError: as :meth:`Registry.resolve`.
        :raise WorkerFailed: if the workers cannot be started.
        """
        most = min_worker if max_worker is None else max_worker
        if most < min_worker:
            raise BadRequest("max_worker cannot be less than min_worker.")
        if not 0 <= min_worker <= MOST_WORKERS:
            raise BadRequest(f"min_worker must be from 0 to {MOST_WORKERS}, not {min_worker}.")
        if most > MOST_WORKERS:
            raise BadRequest(f"max_worker must be at most {MOST_WORKERS}, not {most}.")
        model = self._catalogue.resolve(name, version)
        scaling = self._catalogue.pool_of(model).scale(min_worker, most)
        if not synchronous:
            self._watch(scaling, model)
            return Outcome(202, IN_PROGRESS)
        try:
            await scaling
        except WorkerFailed as e:
            self._log_failed(model, e)
            # Literally "null" when the request names no version: clients compare the text.
            raise _not_started(e, name, version or "null") from e
        self._changed()
        text = f"Workers scaled to {min_worker} for model: {name}"
        return Outcome(200, text if version is None else f"{text}, version: {version}")

    def set_default(self, name: str, version: str) -> Outcome:
        """
        Make a version the one which is used when a request names none.

        :raise ServeError: as :meth:`Registry.set_default`.
        """
        self._catalogue.registry = self._catalogue.registry.set_default(name, version)
        self._changed()
        return Outcome(200, f'Default version successfully updated for model "{name}" to "{version}"')

    async def describe(self, name: str, version: str | None) -> list[dict[str, Any]]:
        """
        Describe a version, the default one for ``None``, every one for ``all``.

        :raise ServeError: as :meth:`Registry.resolve`.
        """
        models: Sequence[ModelVersion]
        if version == "all":
            models = self._catalogue.registry.versions(name)
        else:
            models = [self._catalogue.resolve(name, version)]
        pools = [self._catalogue.pool_of(model) for model in models]
        memory = await self._memory.of(pids(pools))
        return [describe(model, pool, memory) for model, pool in zip(models, pools, strict=True)]

    def find(self, name: str, version: str | None) -> ModelVersion:
        """
        Find a version, the default one for ``None``.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        return self._catalogue.resolve(name, version)

    def list_models(self, limit: int, offset: int) -> dict[str, Any]:
        """List the default versions by name, a page at a time (``spec/rest_api.md`` §8.1)."""
        registry = self._catalogue.registry
        page = registry.names(limit, offset)
        listing: dict[str, Any] = {}
        if page.next_page_token is not None:
            listing["nextPageToken"] = str(page.next_page_token)
        listing["models"] = [{"modelName": name, "modelUrl": registry.resolve(name).url} for name in page.names]
        return listing

    async def retire_all(self, grace: float) -> None:
        """End every worker, running work has ``grace`` seconds; and go on with no registration."""
        for registering in list(self._under_way):
            registering.cancel()
        retiring = [pool.retire(grace) for _model, pool in self._catalogue]
        for pool in retiring:
            await pool

    def hurry(self) -> None:
        """End every worker now, while `retire_all` waits for them."""
        for _model, pool in self._catalogue:
            pool.retire(0.0)

    async def _enter(self, wanted: Registration, url: str, at_startup: bool) -> ModelVersion:
        files = _Files(await self._unless_stopped(self._store.open(url)))
        try:
            if self._catalogue.stopping:
                raise _stopping()
            model = self._version_of(wanted, files.archive, at_startup)
            # Asked now, too, so that nobody waits for pip only to hear that there is such a version.
            self._catalogue.registry.register(model)
            for warning in files.archive.warnings:
                self._log.warn("Model {name}: {warning}", name=model.name, warning=warning)
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

    async def _install(self, model: ModelVersion) -> Installed | None:
        if self._installer is not None:
            return await self._unless_stopped(self._installer.install(model))
        if model.manifest.requirements_file is not None or model.config.use_venv:
            self._log.warn(
                "Model {name}: nothing is installed for it, because install_py_dep_per_model is false", name=model.name
            )
        return None

    async def _unless_stopped(self, work: Coroutine[Deferred[Any], Any, _T]) -> _T:
        """Wait for a part of a registration, unless the server is stopped meanwhile."""
        under_way = Deferred.fromCoroutine(work)
        self._under_way.add(under_way)
        try:
            return await under_way
        except CancelledError as e:
            raise _stopping() from e
        finally:
            self._under_way.discard(under_way)

    async def _discard(self, files: _Files) -> None:
        if self._installer is not None and files.installed is not None:
            await self._installer.remove(files.installed)
        await self._store.discard(files.archive)

    def _version_of(self, wanted: Registration, archive: ModelArchive, at_startup: bool) -> ModelVersion:
        manifest = archive.manifest
        name = wanted.model_name or manifest.model_name or (fallback_name(archive.url) if at_startup else None)
        if not name:
            raise InvalidModel("Model name is not defined.")
        handler = wanted.handler or manifest.handler or self._default_handler
        if not handler:
            raise InvalidModel(f"Model {name} names no handler, and there is no default_service_handler.")
        runtime = wanted.runtime or manifest.runtime
        if runtime not in RUNTIMES:
            raise InvalidModel(f"Model {name} needs the runtime {runtime}, which this server does not have.")
        recorded = wanted.recorded
        if recorded is not None and recorded.version != manifest.model_version:
            raise InvalidModel(
                f"The archive of model {name} has version {manifest.model_version}, the snapshot {recorded.version}."
            )
        settings = self._settle(wanted.settings, archive, name, manifest.model_version, at_startup)
        return ModelVersion(
            name=valid_model_name(name),
            version=valid_model_version(manifest.model_version),
            url=archive.url if recorded is None else recorded.url or archive.url,
            model_dir=archive.model_dir,
            manifest=manifest,
            config=archive.config,
            handler=handler,
            settings=settings if recorded is None else recorded.applied_to(settings),
            runtime=runtime,
            loaded_at_startup=at_startup,
        )

    async def _give_up(self, model: ModelVersion, pool: Pool) -> None:
        """End the workers of a version that is registered no more, and remove its files."""
        # Now, because its name may be another's when the workers have gone.
        files = self._files.pop((model.name, model.version))
        await pool.retire(self._retire_timeout)
        await self._discard(files)

    def _watch(self, scaling: Deferred[Any], model: ModelVersion, at_startup: bool = False) -> None:
        """Log what becomes of a change which nobody waits for."""

        def loaded(_result: object) -> None:
            self._log.info(MODEL_LOADED, name=model.name)
            if not at_startup:
                self._changed()

        def failed(failure: Any) -> None:
            failure.trap(ServeError)
            self._log_failed(model, failure.value)

        scaling.addCallbacks(loaded, failed).addErrback(lambda failure: self._log.failure("Scaling failed", failure))

    def _log_failed(self, model: ModelVersion, error: ServeError) -> None:
        self._log.error(
            "Workers of model {name} version {version} failed: {error}",
            name=model.name,
            version=model.version,
            error=error,
        )


def _stopping() -> ServiceUnavailable:
    return ServiceUnavailable("The server is stopping.")


def _not_started(error: WorkerFailed, name: str, version: str) -> WorkerFailed:
    status = 507 if error.status == 507 else 500
    return WorkerFailed(status, f"Failed to start workers for model {name} version: {version}").because(
        error.reason or error.message
    )
