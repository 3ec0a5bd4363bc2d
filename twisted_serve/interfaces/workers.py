# SPDX-License-Identifier: Apache-2.0
"""
Define the interfaces of workers and of their provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_serve.wire.messages import Job, LoadModel, Predicted, StreamChunk


@frozen
class WorkerSpec:
    """
    The specification of a worker; the same for all workers of a model version.

    :ivar load: The message by which a worker loads the model; its ``gpu_id`` is set when the worker starts.
    :ivar python: The interpreter to run.
    :ivar environment: The worker's complete environment; only ``PYTHONPATH`` is added to it.
    :ivar startup_timeout: Seconds from start to :class:`~twisted_serve.wire.messages.Loaded`.
    :ivar packages: A directory of packages for this model alone, ``None`` for none: its workers must start without
        modules that were imported before.
    :ivar share_weights: Whether workers may share the memory that ``initialize`` allocated, where that is possible and
        safe.
    """

    load: LoadModel
    python: str
    environment: Mapping[str, str]
    startup_timeout: float
    packages: Path | None = None
    share_weights: bool = True

    @property
    def model_dir(self) -> Path:
        """The unpacked archive; the worker's working directory."""
        return Path(self.load.model_dir)


@frozen
class Placement:
    """
    The id and device of one worker.

    :ivar worker_id: Counted from ``initial_worker_port`` (9000); shown by describe and in log lines.
    :ivar gpu_id: The device, ``None`` for the CPU.
    """

    worker_id: str
    gpu_id: int | None = None


class IWorker(Interface):
    """One running copy of a model version, on any machine."""

    worker_id: str = Attribute("The ``worker_id`` of its placement.")

    pid: int | None = Attribute("The process id, or ``None`` while there is no process.")

    shares_weights: bool = Attribute("Whether its weights are in memory shared with other workers of the version.")

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
        Fires once, with a one-line description of how the worker ended, when its
        process has been reaped and its descriptors are closed.  It never fails.
        """
    )

    def run(batch_id: int, jobs: list[Job], on_chunk: Callable[[StreamChunk], None]) -> Deferred[Predicted]:
        """
        Send a batch to the worker, which answers it after the unanswered batches that it received before; an
        asynchronous worker may answer in any order.

        Call only after ``loaded`` has fired.  A stopping worker accepts a batch only from the receiver of its last
        response, before that receiver returns, so that it can finish a continuing batch.

        :param on_chunk: Called with each intermediate response, in order, before the result fires.
        :return: Fires with the responses.  Fails with `twisted_serve.errors.WorkerFailed`: with the worker's code when
            the handler raised (the worker keeps running); with its subclass `twisted_serve.errors.WorkerDied` when the
            worker was lost, which is final.  Cancelling has no effect: a batch that has been sent cannot be recalled.
        :raise twisted_serve.errors.WorkerDied: immediately, if the worker is already lost; nothing has been sent.
        :raise twisted_serve.wire.codec.UnsendableError: if a job cannot be encoded; nothing has been sent.
        """

    def cancel(request_ids: list[str]) -> None:
        """Notify the worker that the clients of these requests have disconnected.  It may continue."""

    def pause(request_ids: list[str]) -> None:
        """Ask the worker to send no chunks for these requests; a few more may still arrive."""

    def resume(request_ids: list[str]) -> None:
        """Let the worker send chunks for these requests again."""

    def stop(grace: float) -> Deferred[None]:
        """
        Stop the worker: let a running batch, and its continuation, finish for up to ``grace`` seconds, then terminate
        the process, then kill it.

        :return: Fires when ``lost`` has; calling this again is harmless and can shorten the grace period.
        """


class IWorkerProvider(Interface):
    """Starts workers on this machine, in virtual time for tests, or later on a cluster."""

    def start(spec: WorkerSpec, placement: Placement) -> IWorker:
        """
        Start a worker; observe its ``loaded`` and ``lost``.

        Never raises: errors are reported through ``loaded``.
        """

    def prepare() -> None:
        """Prepare the resources that all workers share, because workers will be started soon."""

    def forget(spec: WorkerSpec) -> None:
        """Release the resources held for this exact ``spec``, because no more workers will be started for it."""

    def stop() -> Deferred[None]:
        """Stop all workers and other processes of this provider; fire when none is left."""
