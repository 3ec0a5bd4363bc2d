# SPDX-License-Identifier: Apache-2.0
"""
Call a server from the application that runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred

from twisted_serve.errors import ServerNotRunning
from twisted_serve.inprocess.models import Models, Registered
from twisted_serve.inprocess.predictions import Call, Input, Predictions
from twisted_serve.inprocess.streams import Answer, Stream
from twisted_serve.models.settings import RequestedSettings


class Calls(Service):
    """
    What the calls of the application reach, from the start of the server until it accepts no more requests.

    :ivar predictions: Submits requests.
    :ivar models: Changes models.
    """

    def __init__(self, predictions: Predictions, models: Models) -> None:
        self.setName("calls")
        self.predictions = predictions
        self.models = models


class ApplicationCalls:
    """
    The calls of the application, without a transport and without a token.

    None raises: all errors, those of :mod:`twisted_serve.errors`, arrive through the Deferred or the stream. Before the
    start of the server and after its stop that is `ServerNotRunning`.
    """

    def _find_calls(self) -> Calls | None:
        """Return what the calls reach; ``None`` if the server has never been started."""
        raise NotImplementedError

    @property
    def _calls(self) -> Calls:
        calls = self._find_calls()
        if calls is None or not calls.running:
            raise ServerNotRunning()
        return calls

    def predict(
        self,
        model: str,
        data: Input = b"",
        *,
        content_type: str = "",
        version: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        explain: bool = False,
    ) -> Deferred[Answer]:
        """
        Make a prediction, without HTTP and without a token.

        :param data: The input, at most ``max_request_size`` bytes, parsed as HTTP's body would be; or the fields of a
            form by name.
        :param content_type: The content type of ``data``.
        :param version: ``None`` for the default version.
        :param headers: Further headers for the handler.
        :param timeout: Seconds until the caller stops waiting.
        :param explain: Whether to call the handler's ``explain`` method.
        :return: Fires with the response, whatever its status; the parts of a streamed response are joined. Cancel it
            to cancel the prediction. It fails with an error of :mod:`twisted_serve.errors`: `ServerNotRunning`,
            `ModelNotFound`, `BadRequest`, `ServiceUnavailable` for a full queue, `RequestTimeout`, `WorkerFailed` if
            the handler raised, and so on.
        """
        call = Call(model, data, content_type, version, headers, timeout, explain)
        return maybeDeferred(lambda: self._calls.predictions.predict(call))

    def stream(
        self,
        model: str,
        data: Input = b"",
        *,
        content_type: str = "",
        version: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        explain: bool = False,
    ) -> Stream:
        """Make a prediction; as `predict`, but return its response part by part, at the pace of its reader."""
        call = Call(model, data, content_type, version, headers, timeout, explain)
        stream = Stream()
        stream.follow(maybeDeferred(lambda: self._calls.predictions.stream(call, stream)))
        return stream

    def register(
        self,
        url: str | PathLike[str] | None = None,
        *,
        name: str | None = None,
        handler: str | None = None,
        version: str | None = None,
        workers: int = 1,
        batch_size: int | None = None,
        max_batch_delay: int | None = None,
        response_timeout: int | None = None,
        startup_timeout: int | None = None,
    ) -> Deferred[Registered]:
        """
        Register a version of a model, and start its workers.

        A failure leaves nothing behind. ``enable_model_api`` and ``allowed_urls`` do not apply.

        :param url: An archive or a directory: a path, relative to the working directory; an entry of the model store;
            or a URL. ``None`` for a model that is code of the application.
        :param name: ``None`` for that of the archive.
        :param handler: ``None`` for that of the archive. A module of the application, with its class or function:
            ``"myapp.models:Digits"``; workers have the application's import path then.
        :param version: Of a model without an archive; ``None`` for 1.0.
        :param workers: Their number; with 0 none is started.
        :param batch_size: The most requests in one call of the handler; ``None``, as in what follows, for the default.
        :param max_batch_delay: Milliseconds that a batch waits for more requests.
        :param response_timeout: Seconds that a worker has for each response.
        :param startup_timeout: Seconds that a worker has to load.
        :return: Fires when all workers are loaded. It fails with an error of :mod:`twisted_serve.errors`:
            `ModelNotFound`, `InvalidModel`, `Conflict`, `BadRequest`, `WorkerFailed` if a worker cannot load the
            handler, and so on.
        """
        settings = RequestedSettings(batch_size, max_batch_delay, workers, response_timeout, startup_timeout)
        return maybeDeferred(lambda: self._calls.models.register(url, name, handler, version, workers, settings))

    def scale(self, name: str, workers: int, most: int | None = None, *, version: str | None = None) -> Deferred[None]:
        """
        Change the number of workers of a version; fires when they are loaded.

        :param most: How many there may be under load; ``None`` for ``workers``.
        """
        return maybeDeferred(lambda: self._calls.models.scale(name, version, workers, most))

    def set_default(self, name: str, version: str) -> Deferred[None]:
        """Make a version of a model its default one."""
        return maybeDeferred(lambda: self._calls.models.set_default(name, version))

    def unregister(self, name: str, *, version: str | None = None) -> Deferred[None]:
        """Unregister a version of a model; fires when its workers have ended and its files are removed."""
        return maybeDeferred(lambda: self._calls.models.unregister(name, version))

    def describe(self, name: str, *, version: str | None = None) -> Deferred[list[dict[str, Any]]]:
        """Describe a version of a model (``"all"``: every version), as ``GET /models/{name}`` does."""
        return maybeDeferred(lambda: self._calls.models.describe(name, version))

    def models(self) -> Deferred[dict[str, tuple[str, ...]]]:
        """Return the versions of each model, the default one first, by sorted names."""
        return maybeDeferred(lambda: self._calls.models.names())  # noqa: PLW0108 - `_calls` may raise
