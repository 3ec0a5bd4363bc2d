# SPDX-License-Identifier: Apache-2.0
"""
This module implements a model version in a worker: its handler loaded, and called for batch after batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted_serve.backend.call import Call, Outlet
from twisted_serve.backend.envelopes import enveloped
from twisted_serve.backend.gathering import Gathering, Patience
from twisted_serve.backend.loader import EntryPoint, load_entry_point
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.metrics import MetricsCacheYamlImpl
from twisted_serve.wire.messages import LoadModel, Predict, Predicted, PredictFailed

if TYPE_CHECKING:
    import asyncio


class Service:
    """A model version in this process, ready to answer."""

    def __init__(self, load: LoadModel, context: Context, entry: EntryPoint, outlet: Outlet) -> None:
        self._load = load
        self._context = context
        self._entry = entry
        self._outlet = outlet
        self._patience = Patience()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def handler(self) -> object:
        """The handler: the object whose method answers, or the function that does."""
        return getattr(self._entry, "__self__", self._entry)

    def move_to(self, outlet: Outlet) -> None:
        """Answer over another channel from now on: this process is another worker than that which loaded."""
        self._outlet = outlet

    def answer(self, predict: Predict) -> Predicted | PredictFailed:
        """
        Have the handler answer a batch.

        Its exceptions become answers, except ``SystemExit`` and ``KeyboardInterrupt``.
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
        Have the coroutine function that is the handler answer a batch, while it answers others.

        The call has a context of its own: what it sets there is not seen by others.

        :param pace: Makes the handler's coroutine wait between its steps, where it has to.
        :raise asyncio.CancelledError: if this is cancelled.
        """
        import asyncio  # noqa: PLC0415 - 60 ms that only some workers need to spend

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
        """Run what a coroutine function has begun, in a worker that does one thing at a time."""
        if self._loop is None:
            import asyncio  # noqa: PLC0415 - 60 ms that only some workers need to spend

            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(results)


def open_service(load: LoadModel, outlet: Outlet) -> Service:
    """
    Load and initialize the handler.  The model directory must be on the import path.

    :raise Exception: whatever keeps the handler from loading.
    """
    metrics = MetricsCacheYamlImpl(load.model_name, definitions=load.metrics)
    # What is emitted while loading needs an id too.
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
