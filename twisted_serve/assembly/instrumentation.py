# SPDX-License-Identifier: Apache-2.0
"""
Set up the metrics and traces of one server.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_serve.assembly.dependencies import Dependencies
from twisted_serve.assembly.observing import Notifier
from twisted_serve.config.options import ServerOptions
from twisted_serve.config.values import ConfigError
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.logs import MODEL_METRICS, TS_METRICS
from twisted_serve.metrics.pools import PoolReading
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.system import Figure, nvml, read_gpus, read_machine
from twisted_serve.metrics.torchserve.definitions import read_catalogue
from twisted_serve.metrics.torchserve.lines import lines_of_readings, lines_of_values
from twisted_serve.metrics.torchserve.log import MetricLog
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.scheduling.status import STATES

if TYPE_CHECKING:
    from twisted_serve.metrics.tracing import Tracer

_log = Logger("twisted_serve.metrics")


class Instrumentation(Service):
    """
    The metrics, traces and events of one server.

    :ivar metrics: Its metrics.
    :ivar notify: Tells the application's observers of an event.
    :ivar tracer: Makes the traces; ``None`` without ``tracing``.
    :raise ConfigError: for an invalid ``metrics_config``, and for ``tracing`` without its packages.
    """

    def __init__(
        self, clock: IReactorTime, options: ServerOptions, dependencies: Dependencies, defer_to_thread: DeferToThread
    ) -> None:
        self.setName("metrics")
        self._defer_to_thread = defer_to_thread
        self._hostname = socket.gethostname()
        server_log = MetricLog(_log, TS_METRICS, clock, dependencies.now, lines_of_values)
        model_log = MetricLog(_log, MODEL_METRICS, clock, dependencies.now, lines_of_readings)
        self._logs: list[MetricLog[Any]] = [server_log, model_log]
        self.metrics = ServerMetrics(
            self._hostname,
            read_catalogue(options.metrics_config),
            options.metrics_mode,
            auto_detect=options.model_metrics_auto_detect,
            server_log=server_log.add,
            model_log=model_log.add,
        )
        self.tracer = _tracer(dependencies) if options.tracing else None
        self.notify = Notifier(dependencies.observers, clock)
        self._interval = None if options.disable_system_metrics else options.metric_time_interval
        self._gpus: ModuleType | None = None
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Start to read the system metrics periodically, and to send traces."""
        super().startService()
        if self.tracer is not None:
            self.tracer.start()
        if self._interval is not None:
            self._gpus = nvml()
            self._loop.start(self._interval)

    def stopService(self) -> None:
        """Stop the timer, deliver the last events and write all pending log lines; call `send_last_spans` before."""
        super().stopService()
        self.notify.close()
        if self._loop.running:
            self._loop.stop()
        for log in self._logs:
            log.close()

    def send_last_spans(self) -> Deferred[None]:
        """Send the remaining spans in a thread, for some seconds at most."""
        return succeed(None) if self.tracer is None else self._defer_to_thread(self.tracer.stop)

    def _look(self) -> Deferred[None]:
        looked: Deferred[list[Figure]] = self._defer_to_thread(self._read)
        # The loop continues after a failed read.
        return looked.addCallbacks(self._show, lambda failure: _log.failure("No system metrics", failure))

    def _read(self) -> list[Figure]:
        return read_machine() + ([] if self._gpus is None else list(read_gpus(self._gpus)))

    def _show(self, figures: list[Figure]) -> None:
        for figure in figures:
            self.metrics.emitter.bind(figure.name, *figure.labels, self._hostname)(figure.value)


def _tracer(dependencies: Dependencies) -> Tracer:
    """
    Make the tracer; OpenTelemetry is imported only with ``tracing``.

    :raise ConfigError: when OpenTelemetry is not installed, or its variables are invalid.
    """
    try:
        from twisted_serve.metrics.tracing import Tracer  # noqa: PLC0415
    except ImportError as e:
        raise ConfigError(
            f"traces need packages that are not installed ({e}): pip install 'twisted-serve[otel]'", "tracing"
        ) from e
    try:
        return Tracer(dependencies.now, dependencies.span_exporter)
    except ValueError as e:
        raise ConfigError(f"OpenTelemetry's variables cannot be used: {e}", "tracing") from e


def pool_readings(catalogue: Catalogue) -> Iterator[PoolReading]:
    """Read the queues and workers of all models."""
    for model, pool in catalogue:
        status = pool.status()
        states = Counter(STATES[type(worker.status)] for worker in status.workers)
        yield PoolReading(
            model.name,
            model.version,
            waiting=status.pending,
            room=status.remaining,
            running=status.running,
            workers={state: states[state] for state in STATES.values()},
            busy=status.busy,
        )
