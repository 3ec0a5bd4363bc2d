# SPDX-License-Identifier: Apache-2.0
"""
Split a batch into micro-batches and run them through a handler's stages as a pipeline.

While one micro-batch is in the model, the next is preprocessed and the previous one postprocessed,
each stage in its own threads (``docs/torchserve/archives_workers_handlers.md`` §7.13).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from time import perf_counter
from typing import Any

__all__ = ["HANDLER_METHODS", "MicroBatching"]

#: The stages, in order.
HANDLER_METHODS = ("preprocess", "inference", "postprocess")

_current = threading.local()


class MicroBatching:
    """
    Replaces a handler's ``handle``: ``self.handle = MicroBatching(self)`` in ``initialize``.

    An exception in a stage fails the whole batch immediately; micro-batches that have not started are skipped.

    :param parent_handler: The handler whose stages are called.
    :param micro_batch_size: The number of requests in a micro-batch.
    :param parallelism: The number of threads of each stage, by its name; 1 by default.
    :raise ValueError: if a number is below 1, or ``parallelism`` names an unknown stage.
    """

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: Mapping[str, int] | None = None
    ) -> None:
        if micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be at least 1, not {micro_batch_size}")
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._parallelism: Mapping[str, int] = {}
        self.parallelism = parallelism or {}

    @property
    def parallelism(self) -> Mapping[str, int]:
        """The number of threads of each stage; may be set between batches."""
        return self._parallelism

    @parallelism.setter
    def parallelism(self, parallelism: Mapping[str, int]) -> None:
        for stage, threads in parallelism.items():
            if stage not in HANDLER_METHODS:
                raise ValueError(f"parallelism names {stage!r}, which is none of {', '.join(HANDLER_METHODS)}")
            if not isinstance(threads, int) or threads < 1:
                raise ValueError(f"parallelism of {stage} must be at least 1, not {threads!r}")
        self.shutdown()
        self._parallelism = {stage: parallelism.get(stage, 1) for stage in HANDLER_METHODS}

    def __call__(self, data: Any, context: Any) -> Any:
        """
        Process a batch.

        :param data: A list of N dictionaries, one for each request.
        :return: The results of ``postprocess`` for all micro-batches, concatenated in order.
        :raise Exception: any exception of a stage.
        """
        start = perf_counter()
        self.handler.context = context
        if _flag(self.handler, "_is_describe"):
            output = [self.handler.describe_handle()]
        elif _flag(self.handler, "_is_explain"):
            output = self.handler.explain_handle(self.handler.preprocess(data), data)
        else:
            output = self._answers(data)
        if context is not None and context.metrics is not None:
            context.metrics.add_time("HandlerTime", round((perf_counter() - start) * 1000, 2))
        return output

    def _answers(self, data: Any) -> list[Any]:
        # Created with the first batch, not earlier: a worker whose handler has threads cannot be forked.
        if not self._pools:
            self._pools = {stage: ThreadPoolExecutor(n, f"micro-{stage}") for stage, n in self._parallelism.items()}
        size = self.micro_batch_size
        micro_batches = [data[start : start + size] for start in range(0, len(data), size)]
        in_flight = [
            _MicroBatch(self.handler, self._pools, index, micro_batch)
            for index, micro_batch in enumerate(micro_batches)
        ]
        wait([each.done for each in in_flight], return_when=FIRST_EXCEPTION)
        for each in in_flight:
            each.cancelled.set()
        # Wait for all: a stage of an abandoned micro-batch must not overlap the next batch.
        failures = [error for each in in_flight if (error := each.done.exception()) is not None]
        if failures:
            raise failures[0]
        return [result for each in in_flight for result in each.done.result()]

    def get_micro_batch_idx(self) -> int:
        """Return the index of the micro-batch that this thread is processing."""
        index: int = _current.index
        return index

    def shutdown(self) -> None:
        """Stop the threads; the next batch starts new ones."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=True)


def _flag(handler: Any, question: str) -> bool:
    return hasattr(handler, question) and bool(getattr(handler, question)())


class _MicroBatch:
    """
    A micro-batch in the pipeline.

    :ivar done: A future for the result of the last stage, or the exception of any stage.
    """

    def __init__(self, handler: Any, pools: Mapping[str, ThreadPoolExecutor], index: int, data: Any) -> None:
        self.done: Future[Any] = Future()
        self.cancelled = threading.Event()
        self._handler = handler
        self._pools = pools
        self._index = index
        self._submit(0, data)

    def _submit(self, number: int, data: Any) -> None:
        self._pools[HANDLER_METHODS[number]].submit(self._run, number, data)

    def _run(self, number: int, data: Any) -> None:
        if self.cancelled.is_set():
            self.done.set_result([])
            return
        _current.index = self._index
        try:
            result = getattr(self._handler, HANDLER_METHODS[number])(data)
            if number + 1 < len(HANDLER_METHODS):
                self._submit(number + 1, result)
                return
        # SystemExit, too: in a pool's thread it would exit nothing, and the batch would never finish.
        except BaseException as e:
            self.done.set_exception(e)
            return
        self.done.set_result(result)
