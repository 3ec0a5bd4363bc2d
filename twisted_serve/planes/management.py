# SPDX-License-Identifier: Apache-2.0
"""
Manage models: register, describe, scale, unregister, set the default version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.archives.locating import Source
from twisted_serve.errors import BadRequest, Conflict, MethodNotAllowed, ServeError, WorkerFailed
from twisted_serve.eventloop.threads import end_of
from twisted_serve.interfaces.events import ModelFailed
from twisted_serve.logs import MODEL_LOADED, MODEL_NOT_LOADED
from twisted_serve.models.registry import fallback_name
from twisted_serve.models.settings import MOST_WORKERS
from twisted_serve.models.snapshot import RecordedVersion
from twisted_serve.models.version import ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.describing import describe, pids
from twisted_serve.planes.memory_usage import Memory
from twisted_serve.planes.registrar import RUNTIMES, Registrar, Registration, log_failed, not_started
from twisted_serve.planes.startup import StartupFailure, reason_of

_log = Logger("twisted_serve.planes")

IN_PROGRESS = "Processing worker updates..."


@frozen
class Outcome:
    """
    The outcome of a change.

    :ivar status: 200 if the change is complete, 202 if it continues in the background.
    """

    status: int
    text: str


class ManagementPlane:
    """
    The use cases of the management listener.

    :param enabled: Whether clients may register and unregister models (``enable_model_api``).
    """

    def __init__(self, catalogue: Catalogue, registrar: Registrar, memory: Memory, enabled: bool) -> None:
        self._catalogue = catalogue
        self._registrar = registrar
        self._enabled = enabled
        self._memory = memory

    def check_enabled(self) -> None:
        """
        Check that clients may register and unregister models.

        :raise MethodNotAllowed: if the model API is off.
        """
        if not self._enabled:
            raise MethodNotAllowed()

    async def register(self, wanted: Registration) -> Outcome:
        """
        Register a version and start its workers.

        A failure leaves no version, no worker and no file behind.

        :raise MethodNotAllowed: if the model API is off.
        :raise BadRequest: for an invalid parameter.
        :raise ServeError: as :meth:`Registrar.enter`.
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
        model = await self._registrar.enter(wanted, wanted.url)
        if model.settings.min_workers == 0:
            await self._registrar.record(model)
            return Outcome(
                200,
                f'Model "{model.name}" Version: {model.version} registered with 0 initial workers. '
                + (
                    f"The first request starts one, and there may be up to {model.settings.max_workers}."
                    if model.settings.max_workers
                    else "Use scale workers API to add workers for the model."
                ),
            )
        if not wanted.synchronous:
            self._watch(Deferred.fromCoroutine(self._registrar.begin(model)), model)
            # The version stays registered even if its workers fail to load.
            await self._registrar.record(model, complete=False)
            return Outcome(202, IN_PROGRESS)
        await self._registrar.start(model)
        await self._registrar.record(model)
        return Outcome(
            200,
            f'Model "{model.name}" Version: {model.version} registered with '
            f"{model.settings.min_workers} initial workers",
        )

    async def load_at_startup(self, name: str | None, url: str) -> Deferred[StartupFailure | None]:
        """
        Register a model of the start-up list; a failure is logged and does not stop the server.

        :return: A Deferred that fires when the workers have loaded or failed, with the failure if there was one.
        """
        return await self._load(Registration(url=url, model_name=name), url, Source.OPERATOR)

    async def restore(self, recorded: RecordedVersion) -> Deferred[StartupFailure | None]:
        """Register a version from a snapshot; otherwise like `load_at_startup`."""
        url = recorded.mar_name
        wanted = Registration(url, recorded.name, recorded.handler, recorded.runtime, recorded=recorded)
        return await self._load(wanted, url, Source.SNAPSHOT)

    async def _load(self, wanted: Registration, url: str, source: Source) -> Deferred[StartupFailure | None]:
        _log.info("Loading initial models: {url}", url=url)
        try:
            model = await self._registrar.enter(wanted, url, source)
        except Conflict as e:
            # Listed twice, e.g. as an archive and as a directory: the model is not missing.
            _log.warn(MODEL_NOT_LOADED + ": {error}", url=url, error=reason_of(e))
            return succeed(StartupFailure(wanted.model_name, url, reason_of(e)))
        except ServeError as e:
            _log.warn(MODEL_NOT_LOADED + ": {error}", url=url, error=reason_of(e))
            return self.missing(wanted.model_name, url, reason_of(e))
        except Exception as e:
            # A bug triggered by one model must not prevent loading the models after it.
            _log.failure(MODEL_NOT_LOADED, url=url)
            return self.missing(wanted.model_name, url, type(e).__name__)
        if wanted.recorded is not None and wanted.recorded.default:
            # The archive determines the version, which may differ from the snapshot's.
            self._make_default(model.name, model.version)
        if model.settings.min_workers == 0:
            return succeed(None)
        pool = self._catalogue.pool_of(model)
        starting = Deferred.fromCoroutine(self._registrar.begin(model))
        failures: list[StartupFailure] = []
        outcome: Deferred[StartupFailure | None] = Deferred()

        def failed(failure: Failure) -> Failure:
            error = failure.value
            reason = reason_of(error) if isinstance(error, ServeError) else type(error).__name__
            if isinstance(error, WorkerFailed):
                failures.append(StartupFailure(model.name, url, reason, registered=True))
            elif not outcome.called:
                # A bug: the version was removed, so no worker will fire `settled`.
                self.missing(model.name, url, reason).chainDeferred(outcome)
            return failure

        def settled(_result: None) -> None:
            # Workers terminated by the shutdown of the server have not failed.
            if not outcome.called:
                outcome.callback(failures[0] if failures and not self._catalogue.stopping else None)

        starting.addErrback(failed)
        self._watch(starting, model, at_startup=True)
        end_of(pool.settled).addCallback(settled)
        return outcome

    def missing(self, name: str | None, url: str, reason: str) -> Deferred[StartupFailure | None]:
        """Record a start-up model that could not be registered, unless the server is stopping."""
        if self._catalogue.stopping:
            return succeed(None)
        self._catalogue.missing[name or fallback_name(url)] = url
        self._registrar.notify(ModelFailed(name or fallback_name(url), None, reason))
        return succeed(StartupFailure(name, url, reason))

    async def unregister(self, name: str, version: str | None) -> Outcome:
        """
        Unregister a version: finish its work in flight, refuse its queued requests, remove its files.

        :raise MethodNotAllowed: if the model API is off.
        :raise ServeError: as :meth:`Registry.unregister`.
        """
        self.check_enabled()
        await self._registrar.unregister(name, version)
        return Outcome(200, f'Model "{name}" unregistered')

    async def scale(
        self, name: str, version: str | None, min_worker: int, max_worker: int | None, synchronous: bool
    ) -> Outcome:
        """
        Change the number of workers of a version.

        :param max_worker: ``None`` for the same number as ``min_worker``.
        :raise BadRequest: for invalid numbers.
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
            await self._registrar.changed()
            return Outcome(202, IN_PROGRESS)
        try:
            await scaling
        except WorkerFailed as e:
            log_failed(model, e)
            # The new numbers apply, and the workers are restarted.
            await self._registrar.changed()
            # Literally "null" when the request names no version: clients compare the text.
            raise not_started(e, name, version or "null") from e
        await self._registrar.changed()
        text = f"Workers scaled to {min_worker} for model: {name}"
        return Outcome(200, text if version is None else f"{text}, version: {version}")

    async def set_default(self, name: str, version: str) -> Outcome:
        """
        Make a version the default one, which answers requests that name no version.

        :raise ServeError: as :meth:`Registry.set_default`.
        """
        self._make_default(name, version)
        await self._registrar.changed()
        return Outcome(200, f'Default version successfully updated for model "{name}" to "{version}"')

    def _make_default(self, name: str, version: str) -> None:
        self._catalogue.registry = self._catalogue.registry.set_default(name, version)

    async def describe(self, name: str, version: str | None) -> list[dict[str, Any]]:
        """
        Describe a version: ``None`` selects the default one, ``all`` selects every one.

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
        Return a version; ``None`` selects the default one.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        return self._catalogue.resolve(name, version)

    def list_models(self, limit: int, offset: int) -> dict[str, Any]:
        """Return one page of the default versions, sorted by name (``docs/torchserve/rest_api.md`` §8.1)."""
        registry = self._catalogue.registry
        page = registry.names(limit, offset)
        listing: dict[str, Any] = {}
        if page.next_page_token is not None:
            listing["nextPageToken"] = str(page.next_page_token)
        listing["models"] = [{"modelName": name, "modelUrl": registry.resolve(name).url} for name in page.names]
        return listing

    async def retire_all(self, grace: float) -> None:
        """Cancel all registrations and retire all workers; work in flight has ``grace`` seconds."""
        self._registrar.stop()
        retiring = [pool.retire(grace) for _model, pool in self._catalogue]
        for pool in retiring:
            await pool

    def hurry(self) -> None:
        """Terminate all workers immediately, while `retire_all` waits for them."""
        for _model, pool in self._catalogue:
            pool.retire(0.0)

    def _watch(self, scaling: Deferred[Any], model: ModelVersion, at_startup: bool = False) -> None:
        """Log the outcome of a change in the background."""

        def loaded(_result: object) -> None:
            _log.info(MODEL_LOADED, name=model.name)
            if not at_startup:
                self._registrar.arrived(model)

        def failed(failure: Any) -> None:
            failure.trap(ServeError)
            log_failed(model, failure.value, again=False)

        scaling.addCallbacks(loaded, failed).addErrback(lambda failure: _log.failure("Scaling failed", failure))
