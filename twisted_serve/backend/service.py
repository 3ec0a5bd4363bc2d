# SPDX-License-Identifier: Apache-2.0
"""
Load a model version's handler and call it for each batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted_serve.backend.call import Call, Outlet
from twisted_serve.backend.envelopes import enveloped
from twisted_serve.backend.loader import EntryPoint, load_entry_point
from twisted_serve.backend.metric_buffer import Gathering, Patience
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.metrics import MetricsCacheYamlImpl
from twisted_serve.wire.messages import LoadModel, Predict, Predicted, PredictFailed

if TYPE_CHECKING:
    import asyncio


class Service:
    """A loaded model version, which answers batches."""

    def __init__(self, load: LoadModel, context: Context, entry: EntryPoint, outlet: Outlet) -> None:
        self._load = load
        self._context = context
        self._entry = entry
        self._outlet = outlet
        self._patience = Patience()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def handler(self) -> object:
        """The handler: the object whose method is the entry point, or the function."""
        return getattr(self._entry, "__self__", self._entry)

    def move_to(self, outlet: Outlet) -> None:
        """Use another channel: this process is a fork, and another worker than the one that loaded the model."""
        self._outlet = outlet

    def answer(self, predict: Predict) -> Predicted | PredictFailed:
        """
        Call the handler with a batch, and return the response.

        Exceptions of the handler become error responses, except ``SystemExit`` and ``KeyboardInterrupt``.
        """
        call = Call(self._load, self._context, predict, self._outlet, Gathering(self._patience))
        try:
            rows = call.rows()
            results = self._entry(rows, call.context) if rows else []
            return call.answer(self._awaited(results) if hasattr(results, "__await__") else results)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as e:
            return call.failure(e)
        finally:
            call.end()

    async def answer_soon(self, predict: Predict, pace: Callable[[Any], Awaitable[Any]]) -> Predicted | PredictFailed:
        """
        Await an asynchronous handler's results for a batch, concurrently with other batches.

        Each call gets its own copy of the context.

        :param pace: Wraps the handler's coroutine to apply back-pressure; see `Paced`.
        :raise asyncio.CancelledError: if the task is cancelled.
        """
        import asyncio  # noqa: PLC0415 - takes 60 ms, needed by some workers only

        context = copy(self._context)
        context.metrics = copy(context.metrics)
        call = Call(self._load, context, predict, self._outlet, Gathering(self._patience))
        try:
            rows = call.rows()
            return call.answer(await pace(self._entry(rows, context)) if rows else [])
        except (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as e:
            return call.failure(e)
        finally:
            call.end()

    def _awaited(self, results: Awaitable[Any]) -> Any:
        """Run a coroutine to completion, in a worker that answers one batch at a time."""
        if self._loop is None:
            import asyncio  # noqa: PLC0415 - takes 60 ms, needed by some workers only

            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(results)


def open_service(load: LoadModel, outlet: Outlet) -> Service:
    """
    Load and initialize the handler. The model directory must be on the import path.

    :raise Exception: any error in loading the handler.
    """
    metrics = MetricsCacheYamlImpl(load.model_name, definitions=load.metrics)
    # Metrics emitted while loading need a request id, too.
    metrics.set_request_ids(str(uuid4()))
    context = Context(
        load.model_name,
        load.model_dir,
        load.manifest or None,
        load.batch_size,
        load.gpu_id,
        load.server_version,
        load.limit_max_image_pixels,
        metrics,
        load.model_config,
    )
    context.system_properties["allow_pickled_weights"] = load.allow_pickled_weights
    entry = load_entry_point(load.handler, context)
    if load.asynchronous and not inspect.iscoroutinefunction(entry):
        raise TypeError(f"asyncCommunication needs a coroutine function; {_named(entry)} is none: write async def")
    if load.envelope is not None:
        if inspect.iscoroutinefunction(entry):
            raise TypeError(f"service_envelope is {load.envelope!r}, but no envelope goes around a coroutine function")
        entry = enveloped(entry, load.envelope)
    return Service(load, context, entry, outlet)


def _named(entry: EntryPoint) -> str:
    return getattr(entry, "__qualname__", type(entry).__name__)
