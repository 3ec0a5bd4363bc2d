# SPDX-License-Identifier: Apache-2.0
"""
Answer many batches concurrently on an event loop, for a handler that is a coroutine function.

Each batch is a task. Tasks finish in any order; a task that fails does not affect others.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias, Union

from twisted_serve.backend.channel import Channel
from twisted_serve.backend.pacing import Paced
from twisted_serve.backend.service import Service
from twisted_serve.wire.codec import WireError
from twisted_serve.wire.messages import FromWorker, Predict, Predicted, PredictFailed

Answer: TypeAlias = Union[Predicted, PredictFailed]


class LoopOutlet:
    """A channel for calls on an event loop: it never blocks, and relies on the messages read so far."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def send(self, message: FromWorker) -> None:
        """Send a message to the server."""
        self._channel.send(message)

    def is_cancelled(self, request_id: str) -> bool:
        """Return whether the client has disconnected; the loop reads messages whenever the handler awaits."""
        return self._channel.has_gone(request_id)

    def may_send(self, request_id: str) -> bool:
        """Return whether the client is connected; a handler that sends too fast is paused at its next ``await``."""
        return not self._channel.has_gone(request_id)


class Conversation:
    """The requests of the server, and the tasks that answer them."""

    def __init__(self, channel: Channel, service: Service) -> None:
        self._channel = channel
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._tasks: dict[asyncio.Task[Answer], list[str]] = {}
        self._next_read: asyncio.Future[None] = self._loop.create_future()

    async def hold(self) -> None:
        """
        Answer batches until the server closes its end.

        :raise WireError: if the server breaks the protocol.
        :raise ConnectionError: if the server closes the connection while a message is sent.
        """
        self._loop.add_reader(self._channel, self._read)
        # The read that returned ``LoadModel`` may have received further messages.
        self._loop.call_soon(self._read)
        try:
            await self._ended
        finally:
            self._loop.remove_reader(self._channel)

    def _read(self) -> None:
        if self._ended.done():
            return
        try:
            messages = self._channel.receive_now()
            if messages is None:
                self._ended.set_result(None)
                return
            for message in messages:
                if not isinstance(message, Predict):
                    raise WireError(f"{type(message).__name__} came after LoadModel")
                self._begin(message)
        except WireError as e:
            self._ended.set_exception(e)
            return
        for task, ids in self._tasks.items():
            if ids and all(map(self._channel.has_gone, ids)):
                # Cancel it only once: the task may need time to end.
                self._tasks[task] = []
                task.cancel()
        next_read, self._next_read = self._next_read, self._loop.create_future()
        next_read.set_result(None)

    def _begin(self, predict: Predict) -> None:
        ids = [job.request_id for job in predict.jobs]

        def blocked() -> asyncio.Future[None] | None:
            return self._next_read if any(map(self._channel.is_paused, ids)) else None

        task = self._loop.create_task(self._service.answer_soon(predict, lambda work: Paced(work, blocked)))
        self._tasks[task] = ids

        def done(task: asyncio.Task[Answer]) -> None:
            del self._tasks[task]
            if self._ended.done():
                return
            if task.cancelled():
                # No client is waiting, but the server has to know that the worker has a free slot.
                answer: Answer = PredictFailed(predict.batch_id, 503, "The request was cancelled.")
            elif task.exception() is None:
                answer = task.result()
            else:
                # ``SystemExit``, which ends the loop by itself.
                return
            self._channel.forget(ids)
            try:
                self._channel.answer(answer)
            except ConnectionError as e:
                self._ended.set_exception(e)

        task.add_done_callback(done)
