# SPDX-License-Identifier: Apache-2.0
"""
Describe a model version with metadata from its handler (``docs/torchserve/rest_api.md`` §8.3).
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
    The description of a version with its handler's metadata.

    :ivar members: The members from `describe`, and ``customizedMetadata``.
    :ivar item: The handler's response; its status and headers become those of the HTTP response.
    """

    members: dict[str, Any]
    item: Item


class Metadata:
    """
    Queries handlers for the metadata of their models.

    :param seconds: Return the time in seconds of the pools' clock.
    """

    def __init__(self, catalogue: Catalogue, seconds: Callable[[], float], memory: Memory) -> None:
        self._catalogue = catalogue
        self._memory = memory
        self._seconds = seconds

    async def ask(self, name: str, version: str | None, request_id: str) -> CustomDescription:
        """
        Query a version's handler for its metadata: a job in the version's queue, batched alone.

        The job's deadline is the version's response timeout.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        :raise ServiceUnavailable: if there is no worker, or the queue is full.
        :raise InternalError: if the handler does not respond in time.
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
    """Return the member for a handler's response: none if the response is empty; its value is always an object."""
    try:
        metadata = json.loads(body or b"null")
    except (ValueError, RecursionError):
        metadata = body
    if metadata is None:
        return {}
    return {"customizedMetadata": metadata if isinstance(metadata, dict) else {}}
