# SPDX-License-Identifier: Apache-2.0
"""
This module implements nothing: it names the contracts which have, or will have, more than one fulfilment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorProcess,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_serve.wire.messages import Job, MetricDefinition, Predicted, StreamChunk

__all__ = [
    "IServeReactor",
    "IWorker",
    "IWorkerProvider",
    "Now",
    "Placement",
    "WorkerSpec",
]

#: The date and time, always aware, always UTC.
Now: TypeAlias = Callable[[], datetime]


class IServeReactor(
    IReactorCore,
    IReactorTime,
    IReactorTCP,
    IReactorUNIX,
    IReactorProcess,
    IReactorSocket,
    IReactorThreads,
    IReactorFDSet,
):
    """What a whole server needs of a reactor."""


@frozen
class WorkerSpec:
    """
    What a worker is to serve; the same for all workers of a model version.

    :ivar model_dir: The unpacked archive; the worker's working directory.
    :ivar handler: As :class:`twisted_serve.wire.messages.LoadModel`.
    :ivar python: The interpreter to run.
    :ivar environment: The worker's whole environment; nothing is added to it but ``PYTHONPATH``.
    :ivar max_response_size: Bytes that one answer may have.
    :ivar packages: A directory of packages that are this model's own, ``None`` for none: nothing that was imported
        before may be there in its workers.
    :ivar startup_timeout: Seconds from start to :class:`~twisted_serve.wire.messages.Loaded`.
    :ivar share_weights: Whether workers may share what ``initialize`` made, where that is possible and safe.
    :ivar asynchronous: Whether a worker may be given a batch while it has others.
    :ivar continuous: Whether the handler is called again for requests which it has not finished.
    :ivar metrics: As :class:`twisted_serve.wire.messages.LoadModel`.
    """

    model_name: str
    model_version: str
    model_dir: Path
    handler: str
    batch_size: int
    manifest: Mapping[str, Any]
    model_config: Mapping[str, Any]
    python: str
    environment: Mapping[str, str]
    startup_timeout: float
    envelope: str | None = None
    limit_max_image_pixels: bool = True
    allow_pickled_weights: bool = False
    decode_input_request: bool = True
    max_response_size: int = 6553500
    packages: Path | None = None
    share_weights: bool = True
    asynchronous: bool = False
    continuous: bool = False
    metrics: tuple[MetricDefinition, ...] = ()


@frozen
class Placement:
    """
    Where one worker runs, and how it is called.

    :ivar worker_id: Counted from ``initial_worker_port`` (9000); shown by describe and in log lines.
    :ivar gpu_id: The device, ``None`` for the CPU.
    """

    worker_id: str
    gpu_id: int | None = None


class IWorker(Interface):
    """One running copy of a model version, wherever it runs."""

    worker_id: str = Attribute("The ``worker_id`` of its placement.")

    pid: int | None = Attribute("The process id, or ``None`` while there is no process.")

    shares_weights: bool = Attribute("Whether it has the weights in memory that other workers of the version use too.")

    loaded: Deferred[None] = Attribute(
        """
        Fires once with ``None`` when the handler is initialized.  Fails once with
        `twisted_serve.errors.WorkerFailed`: with the worker's code and reason if
        loading failed, if the process ended before it was loaded, or if
        ``startup_timeout`` passed.  A worker whose ``loaded`` fails stops itself.
        """
    )

    lost: Deferred[str] = Attribute(
        """
        Fires once, with a line saying how, when the worker is gone for good: its
        process has been reaped and its descriptors are closed.  It never fails.
        """
    )

    def run(batch_id: int, jobs: list[Job], on_chunk: Callable[[StreamChunk], None]) -> Deferred[Predicted]:
        """
        Have the worker answer a batch, after those which it was given before and has not answered; an asynchronous
        worker may do so in any order.  Call it only when ``loaded`` has fired.  A worker that is stopping takes one
        only from whom it has just answered, before that returns: so it finishes a batch that goes on.

        :param on_chunk: Called with each intermediate answer, in order, before the result fires.
        :return: Fires with the answers.  Fails with `twisted_serve.errors.WorkerFailed`:
            with the worker's code when the handler raised (the worker lives on); with its
            subclass `twisted_serve.errors.WorkerDied` when the worker was lost, which it
            then is for good.  Cancelling does nothing: a batch at a worker is not called back.
        :raise twisted_serve.errors.WorkerDied: at once when it is lost already; nothing has been sent then.
        :raise twisted_serve.wire.codec.UnsendableError: when a job is nothing that can be sent; nothing has been.
        """

    def cancel(request_ids: list[str]) -> None:
        """Tell the worker that nobody waits for these any more.  It may go on."""

    def pause(request_ids: list[str]) -> None:
        """Tell the worker that these clients take no chunk at the moment; a few more may come all the same."""

    def resume(request_ids: list[str]) -> None:
        """Tell the worker that these clients take chunks again."""

    def stop(grace: float) -> Deferred[None]:
        """
        End the worker: let a running batch, and what goes on of it, finish for up to ``grace`` seconds, then
        terminate, then kill.

        :return: Fires when ``lost`` has; calling it again is harmless and can shorten the grace.
        """


class IWorkerProvider(Interface):
    """A place where workers run: this machine, a fake in virtual time, later a cluster."""

    def start(spec: WorkerSpec, placement: Placement) -> IWorker:
        """
        Begin to start a worker; watch its ``loaded`` and ``lost``.

        Never raises: what goes wrong is told by ``loaded``.
        """

    def prepare() -> None:
        """Workers will be wanted soon: begin with what all of them need."""

    def forget(spec: WorkerSpec) -> None:
        """No more workers will be started of this very ``spec``: keep nothing in store for them."""

    def stop() -> Deferred[None]:
        """End everything that was started here and fire when nothing is left."""
