# SPDX-License-Identifier: Apache-2.0
"""
Derive the settings of each model version, and make the pool of its workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import count, cycle

from twisted_serve import COMPATIBLE_WITH
from twisted_serve.archives.store import ModelArchive
from twisted_serve.assembly.dependencies import Dependencies, count_gpus, usable_cpus, with_threads
from twisted_serve.batching.queue import ClosePolicy
from twisted_serve.config.options import ServerOptions
from twisted_serve.interfaces import IServeReactor, IWorkerProvider, WorkerSpec
from twisted_serve.interfaces.events import Notify, WorkerDied, ignore
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.models.settings import RequestedSettings, ServerDefaults, check_all_configured, effective_settings
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.registrar import MakePool, Settle
from twisted_serve.scheduling.pool import Pool
from twisted_serve.scheduling.sequence_headers import SequenceHeaders
from twisted_serve.wire.messages import LoadModel, MetricDefinition


def settings_resolver(options: ServerOptions, dependencies: Dependencies) -> Settle:
    """
    Return a function that settles a version's settings; the server's options have the lowest precedence.

    :raise ValueError: for an invalid setting in ``models``.
    """
    check_all_configured(options.models)
    defaults = ServerDefaults(
        workers=options.default_workers_per_model,
        response_timeout=options.default_response_timeout,
        startup_timeout=options.default_startup_timeout,
        job_queue_size=options.job_queue_size,
        scale_up_delay=options.scale_up_delay,
        scale_idle_time=options.scale_idle_time,
        circuit_retry=options.circuit_retry_time,
        retry_on_worker_death=options.retry_on_worker_death,
        batch_policy=ClosePolicy(options.default_batch_policy),
        gpus=count_gpus(options.number_of_gpu, dependencies.environ),
        cpus=usable_cpus(),
    )

    def settle(
        wanted: RequestedSettings, archive: ModelArchive, name: str, version: str, at_startup: bool
    ) -> ModelSettings:
        configured = options.models.get(name, {}).get(version, {})
        return effective_settings(wanted, archive.config, configured, defaults, at_startup)

    return settle


def sequence_headers(options: ServerOptions) -> SequenceHeaders:
    """Return the names of the headers of sequences."""
    return SequenceHeaders(
        options.ts_header_key_sequence_id, options.ts_header_key_sequence_start, options.ts_header_key_sequence_end
    )


def pool_factory(
    reactor: IServeReactor,
    options: ServerOptions,
    dependencies: Dependencies,
    provider: IWorkerProvider,
    environment: Mapping[str, str],
    metrics: ServerMetrics,
    notify: Notify = ignore,
) -> MakePool:
    """
    Return a function that makes the pool of a version; all pools number their workers with one counter.

    :param environment: The part of the server's environment that is passed to workers.
    :param notify: Told of workers that died.
    """
    numbers = count(options.initial_worker_port)
    all_gpus = range(count_gpus(options.number_of_gpu, dependencies.environ))
    sequences = sequence_headers(options)
    defined = [
        # The host is added to each value: a handler gives the other labels only.
        MetricDefinition(each.name, each.unit, each.kind.value, list(each.dimensions[:-1]))
        for each in metrics.catalogue.models.values()
    ]

    def make_pool(model: ModelVersion) -> Pool:
        settings = model.settings
        load = LoadModel(
            model_name=model.name,
            model_version=model.version,
            model_dir=str(model.model_dir),
            handler=model.handler,
            batch_size=settings.batch_size,
            manifest=dict(model.manifest.raw),
            model_config=dict(model.config.raw),
            server_version=COMPATIBLE_WITH,
            envelope=options.service_envelope,
            limit_max_image_pixels=options.limit_max_image_pixels,
            allow_pickled_weights=options.allow_pickled_weights,
            decode_input_request=options.decode_input_request,
            max_response_size=options.max_response_size,
            asynchronous=settings.asynchronous,
            continuous=settings.continuous,
            metrics=defined,
            import_path=list(model.import_path),
        )
        spec = WorkerSpec(
            load,
            python=model.python or options.python,
            environment=with_threads(environment, settings.max_workers),
            startup_timeout=settings.startup_timeout,
            packages=model.packages,
            share_weights=model.config.share_weights is not False,
        )
        gpus = cycle(settings.device_ids or all_gpus or (None,)) if settings.device_type == "gpu" else cycle((None,))
        return Pool(
            spec,
            settings,
            provider,
            reactor,
            dependencies.now,
            worker_ids=lambda: str(next(numbers)),
            next_gpu=partial(next, gpus),
            sequences=sequences,
            observer=metrics.version(model.name, model.version),
            on_death=lambda worker, reason: notify(WorkerDied(model.name, model.version, worker, reason)),
        )

    return make_pool
