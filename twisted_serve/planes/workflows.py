# SPDX-License-Identifier: Apache-2.0
"""
Manage workflows and run their predictions: register, describe, list, unregister, predict.

Each node is an ordinary model with its own queue, batches and workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.archives.store import ModelArchive
from twisted_serve.errors import (
    TOO_LATE,
    BadRequest,
    Conflict,
    InternalError,
    InvalidWorkflow,
    MethodNotAllowed,
    RequestTimeout,
    ServeError,
    WorkflowNotFound,
    WorkflowNotRegistered,
)
from twisted_serve.eventloop.threads import end_of
from twisted_serve.models.registry import page_of, valid_model_name
from twisted_serve.models.settings import MOST_WORKERS, RequestedSettings
from twisted_serve.models.version import ModelVersion
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.planes.management import Outcome
from twisted_serve.planes.registrar import Registrar, Registration
from twisted_serve.wire.messages import Item, Job, Part
from twisted_serve.workflows.archive import Workflow
from twisted_serve.workflows.execution import Attempt, execute
from twisted_serve.workflows.spec import Node
from twisted_serve.workflows.store import WorkflowArchive, WorkflowStore

_log = Logger("twisted_serve.planes")

# The version of the models made from workflow functions.
_FUNCTION_VERSION = "1.0"


@frozen
class WorkflowRegistration:
    """
    A request to register a workflow; ``None`` stands for a parameter that the client omitted.

    :ivar url: The archive's location.
    :ivar response_timeout: Seconds, for each node; likewise ``startup_timeout``.
    """

    url: str | None
    workflow_name: str | None = None
    response_timeout: int | None = None
    startup_timeout: int | None = None


@define(eq=False)
class _Registered:
    """
    A registered workflow.

    :ivar models: The model version of each node.
    :ivar running: One Deferred per request in flight, which fires when the request is answered.
    """

    name: str
    archive: WorkflowArchive
    models: Mapping[str, ModelVersion]
    running: set[Deferred[None]] = field(factory=set)


class WorkflowPlane:
    """
    The use cases of workflows.

    :param enabled: Whether clients may register and unregister models, since nodes are models
        (``enable_model_api``).
    :param retire_timeout: Seconds that requests in flight have when their workflow is unregistered.
    """

    def __init__(
        self,
        store: WorkflowStore,
        registrar: Registrar,
        inference: InferencePlane,
        clock: IReactorTime,
        enabled: bool,
        retire_timeout: float,
    ) -> None:
        self._store = store
        self._registrar = registrar
        self._inference = inference
        self._clock = clock
        self._enabled = enabled
        self._retire_timeout = retire_timeout
        self._workflows: dict[str, _Registered] = {}
        self._coming: set[str] = set()

    def check_enabled(self) -> None:
        """
        Check that clients may register and unregister workflows.

        :raise MethodNotAllowed: if the model API is off.
        """
        if not self._enabled:
            raise MethodNotAllowed()

    async def register(self, wanted: WorkflowRegistration) -> Outcome:
        """
        Register a workflow: all its nodes, with their workers.

        A failure leaves no node, no worker and no file behind.

        :raise MethodNotAllowed: if the model API is off.
        :raise BadRequest: for an invalid parameter.
        :raise ServeError: as :meth:`WorkflowStore.open`.
        :raise Conflict: if a workflow has this name already.
        :raise WorkflowNotRegistered: if a node cannot be registered or started.
        """
        self.check_enabled()
        if wanted.url is None:
            raise BadRequest("Parameter url is required.")
        archive = await self._registrar.unless_stopped(self._store.open(wanted.url))
        try:
            name = valid_model_name(wanted.workflow_name or archive.workflow.manifest.workflow_name)
            if name in self._workflows or name in self._coming:
                raise Conflict(f"Workflow {name} is already registered.")
            self._coming.add(name)
            try:
                models = await self._add_nodes(name, archive.workflow, wanted)
            finally:
                self._coming.discard(name)
        except BaseException:
            await self._store.discard(archive)
            raise
        for unused in archive.workflow.spec.unused:
            _log.warn("Workflow {name}: the model {unused} is not in its dag", name=name, unused=unused)
        self._workflows[name] = _Registered(name, archive, models)
        return Outcome(200, f"Workflow {name} has been registered and scaled successfully.")

    async def unregister(self, name: str) -> Outcome:
        """
        Unregister a workflow with its nodes and files, after its requests in flight.

        :raise MethodNotAllowed: if the model API is off.
        :raise WorkflowNotFound: if there is no such workflow.
        """
        self.check_enabled()
        workflow = self._find(name)
        del self._workflows[name]
        try:
            await self._answered([workflow], self._retire_timeout)
        finally:
            try:
                await self._forget(workflow.models.values())
            finally:
                await self._store.discard(workflow.archive)
        return Outcome(200, f'Workflow "{name}" unregistered')

    def describe(self, name: str) -> list[dict[str, Any]]:
        """
        Describe a workflow; the numbers are those in its specification that apply to all nodes.

        :raise WorkflowNotFound: if there is no such workflow.
        """
        archive = self._find(name).archive
        settings = archive.workflow.spec.settings
        return [
            {
                "workflowName": name,
                "workflowUrl": archive.url,
                "minWorkers": settings.min_workers,
                "maxWorkers": settings.max_workers,
                "batchSize": settings.batch_size,
                "maxBatchDelay": settings.max_batch_delay,
                "workflowDag": str(archive.workflow.spec.dag),
            }
        ]

    @property
    def names(self) -> Collection[str]:
        """The names of all workflows."""
        return self._workflows.keys()

    def list_workflows(self, limit: int, offset: int) -> dict[str, Any]:
        """Return one page of the workflows, sorted by name (``docs/torchserve/rest_api.md`` §8.1)."""
        page = page_of(self._workflows, limit, offset)
        listing: dict[str, Any] = {}
        if page.next_page_token is not None:
            listing["nextPageToken"] = str(page.next_page_token)
        listing["workflows"] = [
            {"workflowName": name, "workflowUrl": self._workflows[name].archive.url} for name in page.names
        ]
        return listing

    def predict(
        self,
        name: str,
        job_id: str,
        headers: Mapping[str, str],
        inputs: Sequence[Part],
        deadline: float | None = None,
    ) -> Deferred[bytes | Mapping[str, Any]]:
        """
        Run a workflow on a request.

        :param job_id: The unique id of the request; the ids of the nodes' jobs are made from it.
        :param headers: The headers that every node gets.
        :param inputs: The inputs of the start node.
        :param deadline: The client's deadline in seconds of the clock; ``None`` if the client sent none.
        :return: A Deferred that fires as `execute`; cancelling it cancels all work for the request.
        :raise WorkflowNotFound: if there is no such workflow.
        """
        workflow = self._find(name)

        def ask(attempt: Attempt) -> Deferred[Item]:
            model = workflow.models[attempt.node]
            # A worker distinguishes requests by id, and earlier attempts may still be in flight.
            job = Job(f"{job_id}.{attempt.node}.{attempt.number}", dict(headers), attempt.parts)
            chunks: list[Item] = []

            def first(chunk: Item, _producer: IPushProducer) -> None:
                chunks[:] = [chunk]

            answer = self._inference.predict(model.name, model.version, job, first)
            return answer.addCallback(lambda item: _whole(item, chunks))

        answer = Deferred.fromCoroutine(execute(workflow.archive.workflow.spec, inputs, ask, self._clock))
        if deadline is not None:
            answer.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock, _too_late)
        ended = end_of(answer)
        workflow.running.add(ended)
        ended.addCallback(lambda _: workflow.running.discard(ended))
        return answer

    async def finish(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for the requests in flight, which may still run further nodes."""
        await self._answered(list(self._workflows.values()), grace)

    def _find(self, name: str) -> _Registered:
        workflow = self._workflows.get(name)
        if workflow is None:
            raise WorkflowNotFound.named(name)
        return workflow

    async def _add_nodes(self, name: str, workflow: Workflow, wanted: WorkflowRegistration) -> dict[str, ModelVersion]:
        """Register all nodes concurrently; if one fails, unregister the others."""
        nodes = list(workflow.spec.nodes.values())
        outcomes = await DeferredList(
            [Deferred.fromCoroutine(self._add(name, node, workflow, wanted)) for node in nodes], consumeErrors=True
        )
        models = {node.name: outcome for node, (_, outcome) in zip(nodes, outcomes, strict=True)}
        failures = [outcome for outcome in models.values() if isinstance(outcome, Failure)]
        if failures:
            await self._forget([model for model in models.values() if isinstance(model, ModelVersion)])
            errors = []
            for failure in failures:
                if not isinstance(failure.value, ServeError):
                    # A bug.
                    failure.raiseException()
                errors.append(failure.value)
            texts = ", ".join(error.message for error in errors)
            raise WorkflowNotRegistered(f"Workflow {name} has failed to register. Failures: [{texts}]").because(
                "; ".join(error.reason for error in errors if error.reason) or None
            )
        return models

    async def _add(self, name: str, node: Node, workflow: Workflow, wanted: WorkflowRegistration) -> ModelVersion:
        """
        Register a node as a model and start its workers.

        :raise ServeError: with the name of the node.
        """
        model_name = f"{name}__{node.name}"
        settings = node.settings
        registration = Registration(
            node.url,
            model_name,
            settings=RequestedSettings(
                batch_size=settings.batch_size,
                max_batch_delay=settings.max_batch_delay,
                initial_workers=settings.max_workers,
                response_timeout=wanted.response_timeout,
                startup_timeout=wanted.startup_timeout,
            ),
            workflow=name,
        )
        try:
            if settings.max_workers > MOST_WORKERS:
                raise InvalidWorkflow(f"max-workers must be at most {MOST_WORKERS}, not {settings.max_workers}.")
            if node.url is None:
                model = await self._registrar.enter_archive(registration, _function(model_name, node, workflow))
            else:
                model = await self._registrar.enter(registration, node.url)
        except ServeError as e:
            text = f"Workflow Node {model_name} failed to register. Details: {e.message}"
            raise WorkflowNotRegistered(text).because(e.reason) from e
        await self._registrar.start(model)
        return model

    async def _forget(self, models: Iterable[ModelVersion]) -> None:
        """Unregister those nodes that are still registered."""
        await DeferredList(
            [Deferred.fromCoroutine(self._registrar.forget(model)) for model in models], fireOnOneErrback=True
        )

    async def _answered(self, workflows: Sequence[_Registered], seconds: float) -> None:
        """Wait until no request is in flight, for ``seconds`` at most."""
        running = [ended for workflow in workflows for ended in workflow.running]
        await DeferredList([_after(ended) for ended in running]).addTimeout(seconds, self._clock, lambda *_: None)


def _function(model_name: str, node: Node, workflow: Workflow) -> ModelArchive:
    """Return the archive of a model whose handler is a function of the workflow."""
    handler = f"{workflow.manifest.handler}:{node.name}"
    raw = {"model": {"modelName": model_name, "modelVersion": _FUNCTION_VERSION, "handler": handler}}
    manifest = Manifest(model_name, _FUNCTION_VERSION, handler, raw=raw)
    return ModelArchive("", workflow.directory, manifest, ModelConfig())


def _whole(item: Item, chunks: Sequence[Item]) -> Item:
    """
    Return a response that was not streamed.

    :raise InternalError: if the response was streamed: the next node needs the whole.
    """
    if chunks:
        raise InternalError("it streams its answer, which no node of a workflow can do")
    return item


def _too_late(_result: object, _seconds: float) -> Any:
    raise RequestTimeout(TOO_LATE)


def _after(ended: Deferred[None]) -> Deferred[None]:
    """Return a Deferred that fires when ``ended`` does; cancelling it does not affect other waiters."""
    after: Deferred[None] = Deferred(lambda after: after.callback(None))

    def tell(_result: None) -> None:
        if not after.called:
            after.callback(None)

    ended.addCallback(tell)
    return after
