# SPDX-License-Identifier: Apache-2.0
"""
This module implements envelopes: a form of request and answer that is put around a handler which does not know it.

An envelope of an archive derives from :class:`BaseEnvelope`, as it did before
(``docs/torchserve/grpc_workflows_kserve.md`` §2.2).  The built-in ones derive from
:class:`InstancesEnvelope`: a request brings any number of instances, the
handler gets those of all requests as one batch, and a request that is
malformed is answered alone.
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
    A handler in an envelope; override :meth:`parse_input` and :meth:`format_output`.

    :ivar context: The worker's context.
    """

    context: Any = None

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle_fn = handle_fn

    def handle(self, data: Any, context: Any) -> Any:
        """Answer a batch: the entry point."""
        self.context = context
        if data:
            data = self.parse_input(data)
        results = self._handle_fn(data, context)
        return self.format_output(results) if results else results

    @abstractmethod
    def parse_input(self, data: Any) -> Any:
        """Make what the handler gets of the requests."""

    @abstractmethod
    def format_output(self, data: Any) -> Any:
        """Make the answers of what the handler returned."""


class BodyEnvelope(BaseEnvelope):
    """The handler gets the requests' inputs themselves, instead of dictionaries that have them."""

    def parse_input(self, data: Any) -> Any:
        """Take each request's ``data`` or ``body``."""
        return [input_of(row) for row in data]

    def format_output(self, data: Any) -> Any:
        """Leave the answers as they are."""
        return data


class MalformedRequestError(ValueError):
    """A request does not have the envelope's form; the text says where."""


@frozen
class Opened:
    """
    A request out of its envelope.

    :ivar instances: What the handler gets of it.
    :ivar names: What the instances are called, if they are called anything.
    :ivar id: What the request is called by its client, if anything.
    """

    instances: Sequence[Any]
    names: Sequence[str] = ()
    id: str = ""


class InstancesEnvelope(BaseEnvelope):
    """A form in which a request brings instances; a subclass opens requests and closes answers, one by one."""

    def handle(self, data: Any, context: Any) -> Any:
        """
        Answer a batch with one call of the handler; malformed requests get 400, and the handler does not see them.

        :raise PredictionException: 503, if the handler's results cannot be divided among the requests.
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
        Open requests without answering them: all their instances.

        :raise MalformedRequestError: if one of them does not have the form.
        """
        return [each for row in data for each in self.open(row).instances]

    def format_output(self, data: Any) -> Any:
        """Close one request's answer."""
        return [self.close(Opened(data), data, 0)]

    @abstractmethod
    def open(self, row: Any) -> Opened:
        """
        Open a request.

        :raise MalformedRequestError: if it does not have the form.
        """

    @abstractmethod
    def close(self, request: Opened, results: Any, index: int) -> Any:
        """
        Make the answer to a request.

        :param results: The handler's, one for each of its instances.
        :param index: The request's position in the batch.
        """

    def announce(self, requests: Sequence[Opened]) -> None:
        """Tell the handler, on the context, what its instances are called; by default nothing."""

    def _opened(self, row: Any) -> Opened | MalformedRequestError:
        try:
            return self.open(row)
        except MalformedRequestError as e:
            return e


def plain(value: Any) -> Any:
    """
    Make what JSON knows of a tensor, an array or bytes, for ``json.dumps(default=plain)``.

    :raise TypeError: for anything else.
    """
    if isinstance(value, (bytes, bytearray)):
        return text_of_bytes(value)
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is no JSON")
    return value.tolist()


def _shares(requests: Sequence[Opened], results: Any) -> list[Any]:
    """Give each request the results of its own instances; a request alone gets all there are."""
    if len(requests) == 1:
        return [results]
    total = sum(len(each.instances) for each in requests)
    if not isinstance(results, list) or len(results) != total:
        count = len(results) if isinstance(results, list) else type(results).__name__
        raise PredictionException(f"number of batch response mismatched, expect: {total}, got: {count}.", 503)
    remaining = iter(results)
    return [[next(remaining) for _ in each.instances] for each in requests]
