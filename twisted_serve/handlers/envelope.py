# SPDX-License-Identifier: Apache-2.0
"""
Convert between a wire format and the input and output of a handler: request envelopes.

An archive's envelope derives from :class:`BaseEnvelope`, as in TorchServe
(``docs/torchserve/grpc_workflows_kserve.md`` §2.2). The built-in ones derive from
:class:`InstancesEnvelope`: a request has any number of instances, the handler
gets the instances of all requests as one batch, and only a malformed request
itself gets an error response.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.rows import input_of, text_of_bytes

__all__ = ["BaseEnvelope", "BodyEnvelope", "InstancesEnvelope", "MalformedRequestError", "Opened", "plain"]


class BaseEnvelope(ABC):
    """
    Base class of envelopes: override :meth:`parse_input` and :meth:`format_output`.

    :ivar context: The ``context`` argument of the current batch.
    """

    context: Any = None

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle_fn = handle_fn

    def handle(self, data: Any, context: Any) -> Any:
        """Process a batch: parse the requests, call the handler, format its results."""
        self.context = context
        if data:
            data = self.parse_input(data)
        results = self._handle_fn(data, context)
        return self.format_output(results) if results else results

    @abstractmethod
    def parse_input(self, data: Any) -> Any:
        """Return the handler's ``data``, given the requests' dictionaries."""

    @abstractmethod
    def format_output(self, data: Any) -> Any:
        """Return the list of responses, given the handler's results."""


class BodyEnvelope(BaseEnvelope):
    """Pass the handler each request's input itself, without the dictionary around it."""

    def parse_input(self, data: Any) -> Any:
        """Return each request's ``data`` or ``body``."""
        return [input_of(row) for row in data]

    def format_output(self, data: Any) -> Any:
        """Return the results unchanged."""
        return data


class MalformedRequestError(ValueError):
    """A request does not have the envelope's format; the message names the field."""


@frozen
class Opened:
    """
    A parsed request.

    :ivar instances: The instances to pass to the handler.
    :ivar names: The instances' names, if the format has them.
    :ivar id: The id that the client gave the request, or an empty string.
    """

    instances: Sequence[Any]
    names: Sequence[str] = ()
    id: str = ""


class InstancesEnvelope(BaseEnvelope):
    """Base class of formats with instances; a subclass parses one request and formats one response at a time."""

    def handle(self, data: Any, context: Any) -> Any:
        """
        Process a batch with one call of the handler; malformed requests get 400 and are not passed to it.

        :raise PredictionException: 503, if the number of results differs from the number of instances.
        """
        self.context = context
        if not data or context.get_request_header(0, "describe") == "True":
            return self._handle_fn(data, context)
        requests = [self._opened(row) for row in data]
        good = {index: each for index, each in enumerate(requests) if isinstance(each, Opened)}
        answers: list[Any] = [None] * len(requests)
        if good:
            self.announce(list(good.values()))
            instances = [each for opened in good.values() for each in opened.instances]
            results = self._handle_fn(instances, context) if instances else []
            for (index, opened), share in zip(good.items(), _shares(list(good.values()), results), strict=True):
                answers[index] = self.close(opened, share, index)
        for index, request in enumerate(requests):
            if isinstance(request, MalformedRequestError):
                context.set_response_status(400, "", index)
                answers[index] = json.dumps(
                    {"code": 400, "type": "BadRequestException", "message": str(request)}, indent=2
                )
            if context.get_response_content_type(index) is None:
                context.set_response_content_type(index, "application/json")
        return answers

    def parse_input(self, data: Any) -> Any:
        """
        Return the instances of all requests.

        :raise MalformedRequestError: if a request does not have the envelope's format.
        """
        return [each for row in data for each in self.open(row).instances]

    def format_output(self, data: Any) -> Any:
        """Return the response for one request's results."""
        return [self.close(Opened(data), data, 0)]

    @abstractmethod
    def open(self, row: Any) -> Opened:
        """
        Parse a request.

        :raise MalformedRequestError: if it does not have the envelope's format.
        """

    @abstractmethod
    def close(self, request: Opened, results: Any, index: int) -> Any:
        """
        Return the response to a request.

        :param results: The handler's results, one for each instance of the request.
        :param index: The request's position in the batch.
        """

    def announce(self, requests: Sequence[Opened]) -> None:
        """Set the instances' names on the context before the handler is called; does nothing by default."""

    def _opened(self, row: Any) -> Opened | MalformedRequestError:
        try:
            return self.open(row)
        except MalformedRequestError as e:
            return e


def plain(value: Any) -> Any:
    """
    Convert a tensor, an array or bytes to a JSON value, for ``json.dumps(default=plain)``.

    :raise TypeError: for anything else.
    """
    if isinstance(value, (bytes, bytearray)):
        return text_of_bytes(value)
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is no JSON")
    return value.tolist()


def _shares(requests: Sequence[Opened], results: Any) -> list[Any]:
    """Split the results among the requests, by their numbers of instances; a single request gets all of them."""
    if len(requests) == 1:
        return [results]
    total = sum(len(each.instances) for each in requests)
    if not isinstance(results, list) or len(results) != total:
        count = len(results) if isinstance(results, list) else type(results).__name__
        raise PredictionException(f"number of batch response mismatched, expect: {total}, got: {count}.", 503)
    remaining = iter(results)
    return [[next(remaining) for _ in each.instances] for each in requests]
