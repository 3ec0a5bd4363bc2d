# SPDX-License-Identifier: Apache-2.0
"""
Provide workers that are processes of this machine, each with its own socket.

`twisted_serve.workers.process.spawn` starts such a process from nothing, in any interpreter;
`twisted_serve.workers.template.launcher` forks it from a process that has imported everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

from twisted_serve.interfaces import IServeReactor, IWorker, IWorkerProvider, Placement, WorkerSpec
from twisted_serve.logs import log_model_output
from twisted_serve.wire.codec import MAX_FRAME, UnsendableError, encode
from twisted_serve.wire.messages import Reading
from twisted_serve.wire.metric_lines import METRIC_MARK
from twisted_serve.workers.process.launch import Launch, attempt, load_message
from twisted_serve.workers.process.process import Stream
from twisted_serve.workers.process.spawn import Spawner
from twisted_serve.workers.process.worker import ProcessWorker
from twisted_serve.workers.template.launcher import TemplateLauncher

# Bytes that each response may have besides its body: the handler's headers, a reason phrase, metrics.
_ROOM_FOR_HEADERS = 1 << 20


def longest_frame(spec: WorkerSpec) -> int:
    """Return the largest length of a worker's message, in bytes: a full batch of the largest responses."""
    return min(MAX_FRAME, spec.load.batch_size * (spec.load.max_response_size + _ROOM_FOR_HEADERS))


@implementer(IWorkerProvider)
class LocalProvider:
    """
    A provider that starts workers as child processes.

    :param log: The logger for the output of workers, as events of the model log: ``logger_name`` ``MODEL_LOG``, and
        ``thread_name`` as TorchServe named the threads that read a worker's output.
    :param on_metric_line: Called with each line of output that is a metric; such lines are not logged.
    :param on_metrics: Called with the metrics that come with responses.
    :param template_environment: The environment of templates, from which workers are forked where possible; ``None``
        to use no templates.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        log: Logger | None = None,
        on_metric_line: Callable[[str], None] = lambda line: None,
        on_metrics: Callable[[list[Reading]], None] = lambda readings: None,
        template_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._log = log or Logger("twisted_serve.workers")
        self._spawner = Spawner(reactor)
        self._template_launcher = (
            None
            if template_environment is None
            else TemplateLauncher(reactor, template_environment, self._spawner, self._printed)
        )
        self._on_metric_line = on_metric_line
        self._on_metrics = on_metrics
        self._workers: set[ProcessWorker] = set()
        self._stopped = False

    def start(self, spec: WorkerSpec, placement: Placement) -> IWorker:
        """Start a worker; see `IWorkerProvider`."""
        name = f"W-{placement.worker_id}-{spec.load.model_name}_{spec.load.model_version}"
        worker = ProcessWorker(
            placement.worker_id,
            self._reactor,
            spec.startup_timeout,
            longest_frame(spec),
            lambda stream, line: self._printed(name, stream, line),
            self._on_metrics,
        )
        if self._stopped:
            worker.fail_to_start("The server is stopping.")
            return worker
        self._workers.add(worker)

        def forget(how: str) -> str:
            self._workers.discard(worker)
            return how

        worker.lost.addCallback(forget)
        with attempt(worker):
            self._begin(worker, spec, placement)
        return worker

    def prepare(self) -> None:
        """Start the root template; see `IWorkerProvider`."""
        if self._template_launcher is not None:
            self._template_launcher.prepare()

    def forget(self, spec: WorkerSpec) -> None:
        """End the template of ``spec``; see `IWorkerProvider`."""
        if self._template_launcher is not None:
            self._template_launcher.forget(spec)

    def stop(self) -> Deferred[None]:
        """Kill all workers, then end the templates; see `IWorkerProvider`."""
        self._stopped = True
        stopped = gatherResults([worker.stop(0.0) for worker in list(self._workers)])
        templates = self._template_launcher
        return stopped.addCallback(lambda _: None if templates is None else templates.stop())

    def _begin(self, worker: ProcessWorker, spec: WorkerSpec, placement: Placement) -> None:
        load = load_message(spec, placement)
        try:
            encode(load)
        except UnsendableError as e:
            # YAML has types and integers that MessagePack cannot represent.
            worker.fail_to_start(f"The model's manifest or configuration cannot be handed to a worker: {e}")
            return
        templates = self._template_launcher
        launcher = templates if templates is not None and templates.can_begin(spec) else self._spawner
        launcher.begin(Launch(worker, spec, placement, load))

    def _printed(self, name: str, stream: Stream, line: str) -> None:
        if line.startswith(METRIC_MARK):
            self._on_metric_line(line)
            return
        log_model_output(self._log, name, stream, line)
