# SPDX-License-Identifier: Apache-2.0
"""A client of gRPC for the tests: the C core of ``grpcio``, with the messages of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from tests.integration.conftest import LONG
from twisted_serve.rpc import messages

INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService"
HEALTH = "/grpc.health.v1.Health"

#: No proxy of the environment, no limit for responses, and no connection that another channel has.
OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)


def request_of(model: str, data: bytes = b"", sequence: str | None = None, **inputs: bytes) -> Any:
    """Return a request for a prediction."""
    return messages.PredictionsRequest(model_name=model, input={"data": data, **inputs}, sequence_id=sequence)


class Client:
    """
    The calls of one channel.

    :param bearer: The key to show.
    """

    def __init__(self, channel: grpc.Channel, bearer: str | None = None) -> None:
        self.channel = channel
        self.metadata = () if bearer is None else (("authorization", f"Bearer {bearer}"),)

    def unary(self, path: str, request: Any, answer: Any, **how: Any) -> Any:
        """Return the call, which has been made, as the callable that makes it returns it: message and call."""
        method = self.channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
        return method.with_call(request, **{"metadata": self.metadata, "timeout": LONG, **how})

    def predict(self, model: str, data: bytes = b"", **how: Any) -> bytes:
        """Return a prediction."""
        path = f"{INFERENCE}/Predictions"
        message, _call = self.unary(path, request_of(model, data), messages.PredictionResponse, **how)
        return bytes(message.prediction)

    def begin(self, model: str, data: bytes = b"", **how: Any) -> Any:
        """Begin a prediction, and return the call."""
        method = self.channel.unary_unary(
            f"{INFERENCE}/Predictions",
            messages.PredictionsRequest.SerializeToString,
            messages.PredictionResponse.FromString,
        )
        return method.future(request_of(model, data), **{"metadata": self.metadata, "timeout": LONG, **how})

    def stream(self, model: str, data: bytes = b"", **how: Any) -> Any:
        """Begin a streamed prediction, and return the call."""
        method = self.channel.unary_stream(
            f"{INFERENCE}/StreamPredictions",
            messages.PredictionsRequest.SerializeToString,
            messages.PredictionResponse.FromString,
        )
        return method(request_of(model, data), **{"metadata": self.metadata, "timeout": LONG, **how})

    def converse(self, requests: Iterable[Any], **how: Any) -> Any:
        """Begin a call of StreamPredictions2, and return it."""
        method = self.channel.stream_stream(
            f"{INFERENCE}/StreamPredictions2",
            messages.PredictionsRequest.SerializeToString,
            messages.PredictionResponse.FromString,
        )
        return method(iter(requests), **{"metadata": self.metadata, "timeout": LONG, **how})

    def health(self, service: str = "") -> str:
        """Return the health of a service; no key is shown."""
        request = messages.HealthCheckRequest(service=service)
        message, _call = self.unary(f"{HEALTH}/Check", request, messages.HealthCheckResponse, metadata=())
        return str(messages.HealthCheckResponse.ServingStatus.Name(message.status))

    def watch(self, service: str = "") -> Any:
        """Begin to watch the health of a service, and return the call."""
        method = self.channel.unary_stream(
            f"{HEALTH}/Watch", messages.HealthCheckRequest.SerializeToString, messages.HealthCheckResponse.FromString
        )
        return method(messages.HealthCheckRequest(service=service), timeout=LONG)


@contextmanager
def connected(
    target: str,
    bearer: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> Iterator[Client]:
    """
    Open a channel, and close it.

    :param target: Host and port, or ``unix:`` and a path.
    """
    every = list({**dict(OPTIONS), **dict(options)}.items())
    if credentials is None:
        channel = grpc.insecure_channel(target, every)
    else:
        channel = grpc.secure_channel(target, credentials, every)
    with channel:
        yield Client(channel, bearer)


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Return code and text of a call that fails."""
    try:
        answered = call()
    except grpc.RpcError as e:
        return e.code().name, e.details() or ""
    raise AssertionError(f"answered: {answered!r:.200}")
