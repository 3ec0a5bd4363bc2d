# SPDX-License-Identifier: Apache-2.0
"""
This module implements the describe call which a model's handler has a say in (``docs/torchserve/rest_api.md`` §8.3).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen

from twisted_serve.errors import InternalError, RequestTimeout, ServiceUnavailable
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.describing import describe, pids
from twisted_serve.planes.memory_usage import Memory
from twisted_serve.wire.messages import Item, Job


@frozen
class CustomDescription:
    """
    A version with what its handler says of it.

    :ivar members: As `describe` has them, and ``customizedMetadata``.
    :ivar item: The handler's answer, whose head is the whole answer's.
    """

    members: dict[str, Any]
    item: Item


class Metadata:
    """
    Asks handlers to describe their models.

    :param seconds: The time of the clock which the pools have.
    """

    def __init__(self, catalogue: Catalogue, seconds: Callable[[], float], memory: Memory) -> None:
        self._catalogue = catalogue
        self._memory = memory
        self._seconds = seconds

    async def ask(self, name: str, version: str | None, request_id: str) -> CustomDescription:
        """
        Have a version's handler describe it: a job in the version's queue, in a batch of its own.

        It waits no longer than a worker may take for an answer.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        :raise ServiceUnavailable: if there is no worker, or no room in the queue.
        :raise InternalError: if there is no answer in time.
        :raise WorkerFailed: if the worker fails.
        """
        model = self._catalogue.resolve(name, version)
        pool = self._catalogue.pool_of(model)
        limit = model.settings.response_timeout
        job = Job(request_id, {"describe": "True"}, [])
        try:
            item = await pool.submit(job, deadline=self._seconds() + limit, versioned=version is not None)
        except ServiceUnavailable as e:
            raise ServiceUnavailable(
                f'Model "{name}" has no worker to serve describe request. Please use scale workers API to add workers.',
                e.retry_after,
            ).because(e.message) from e
        except RequestTimeout as e:
            raise InternalError("Failed to get customized model metadata.").because(
                f"The handler has not described the model within {limit} s."
            ) from e
        memory = await self._memory.of(pids([pool]))
        return CustomDescription({**describe(model, pool, memory), **_custom_member(item.body)}, item)


def _custom_member(body: bytes) -> dict[str, Any]:
    """Return the member which a handler's answer becomes: none for nothing, and an object in any case."""
    try:
        said = json.loads(body or b"null")
    except (ValueError, RecursionError):
        said = body
    if said is None:
        return {}
    return {"customizedMetadata": said if isinstance(said, dict) else {}}
