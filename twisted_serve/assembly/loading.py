# SPDX-License-Identifier: Apache-2.0
"""
Load the start-up models of a server, and retire all models at its stop.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.archives.store import ModelStore
from twisted_serve.assembly.tree import Deadline
from twisted_serve.config.options import ServerOptions
from twisted_serve.config.startup_models import ALL_MODELS, StartupModel
from twisted_serve.errors import ServeError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.eventloop.turns import TurnWatch
from twisted_serve.interfaces import IWorkerProvider
from twisted_serve.logs import MODEL_NOT_LOADED
from twisted_serve.models.snapshot import RecordedVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.snapshots import Snapshots
from twisted_serve.planes.startup import StartupFailure, StartupOutcome, reason_of

_log = Logger("twisted_serve.server")


class Workers(Service):
    """The provider of worker processes, and all that it has started."""

    def __init__(self, provider: IWorkerProvider) -> None:
        self.setName("provider")
        self._provider = provider

    def stopService(self) -> Deferred[None]:
        """End all workers and other processes."""
        started = self.running
        super().stopService()
        return self._provider.stop() if started else succeed(None)


class Models(Service):
    """
    The model versions of a server, and their workers.

    :ivar catalogue: The registered versions and their pools.
    :ivar management: Registers and retires them.
    :param deadline: How long running batches may take after the stop has begun.
    """

    def __init__(self, catalogue: Catalogue, management: ManagementPlane, deadline: Deadline) -> None:
        self.setName("models")
        self.catalogue = catalogue
        self.management = management
        self._deadline = deadline

    def stopService(self) -> Deferred[None]:
        """End all workers when they have finished their batches."""
        started = self.running
        super().stopService()
        if not started:
            return succeed(None)
        return Deferred.fromCoroutine(self.management.retire_all(self._deadline.left()))

    def hurry(self) -> None:
        """End all workers now."""
        self.management.hurry()


class Readiness(Service):
    """
    The start-up models, and whether the server is ready.

    :param recorded: The versions of the snapshot to restore.
    :param turns: Armed when all models are loaded.
    """

    def __init__(
        self,
        clock: IReactorTime,
        options: ServerOptions,
        models: Models,
        store: ModelStore,
        recorded: tuple[RecordedVersion, ...],
        provider: IWorkerProvider,
        snapshots: Snapshots,
        turns: TurnWatch | None,
        defer_to_thread: DeferToThread,
    ) -> None:
        self.setName("readiness")
        self._clock = clock
        self._options = options
        self._catalogue = models.catalogue
        self._management = models.management
        self._store = store
        self._recorded = recorded
        self._provider = provider
        self._snapshots = snapshots
        self._turns = turns
        self._defer_to_thread = defer_to_thread
        self._delay: Deferred[None] = succeed(None)

    def load(self, models: tuple[StartupModel, ...]) -> Deferred[StartupOutcome]:
        """Begin to load the start-up models; the Deferred fires when each has its workers or has failed."""
        if models or self._recorded:
            self._provider.prepare()
        self._catalogue.starting = True
        return Deferred.fromCoroutine(self._load(models)).addErrback(_load_failed)

    def stopService(self) -> Deferred[None]:
        """Be unready, and serve for ``shutdown_delay`` seconds: balancers see readiness on new connections only."""
        started = self.running
        super().stopService()
        self._catalogue.stopping = True
        return Deferred.fromCoroutine(self._wait()) if started else succeed(None)

    def hurry(self) -> None:
        """End the delay."""
        self._delay.cancel()

    async def _wait(self) -> None:
        if self._options.shutdown_delay:
            self._delay = deferLater(self._clock, self._options.shutdown_delay)
            with suppress(CancelledError):
                await self._delay

    async def _load(self, models: tuple[StartupModel, ...]) -> StartupOutcome:
        management, catalogue, loading = self._management, self._catalogue, []
        try:
            if models == (ALL_MODELS,):
                found = await self._defer_to_thread(self._store.scan_all)
                models = tuple(StartupModel(None, name) for name in found)
            loads = [partial(management.restore, version) for version in self._recorded]
            loads += [partial(management.load_at_startup, model.name, model.url) for model in models]
            for load in loads:
                if catalogue.stopping:
                    break
                loading.append(await load())
        except ServeError as e:
            # The list of all models is not available.
            _log.critical(MODEL_NOT_LOADED + ": {error}", url=self._options.load_models, error=reason_of(e))
            loading.append(management.missing(None, "all", reason_of(e)))
        finally:
            catalogue.starting = False
        outcomes = await DeferredList(loading)
        outcome = StartupOutcome(
            len(loading), tuple(failure for _, failure in outcomes if isinstance(failure, StartupFailure))
        )
        # The state of a server that will end because of a failure is not worth keeping.
        if not (outcome.failures and self._options.startup_models_required):
            await self._snapshots.begin()
        if self._turns is not None and not catalogue.stopping:
            self._turns.arm()
        return outcome


def _load_failed(failure: Failure) -> StartupOutcome:
    """Log a defect; the server serves the models it has."""
    _log.failure("Loading the start-up models failed", failure)
    return StartupOutcome(1, (StartupFailure(None, "start-up models", type(failure.value).__name__),))
