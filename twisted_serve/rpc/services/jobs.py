# SPDX-License-Identifier: Apache-2.0
"""
Make jobs of messages, and select the metadata of a call that handlers see.

TorchServe's handlers see no metadata. A handler here sees the client's own, as it sees the headers of an HTTP request,
but nothing that belongs to gRPC, and nothing by which the server states the route: a handler of TorchServe finds no
``explain`` in a call, and predicts.
"""

from __future__ import annotations

from twisted_serve.errors import BadRequest
from twisted_serve.planes.inputs import MOST_PARTS
from twisted_serve.planes.job_headers import hidden_headers, job_headers, sender_header
from twisted_serve.rpc.contracts import Call
from twisted_serve.rpc.messages import PredictionsRequest
from twisted_serve.rpc.services.torchserve import ParameterRequired
from twisted_serve.wire.messages import Part

# Of the protocol: for the server, not for the code of a model.
_PROTOCOL = frozenset({b"te", b"content-type", b"user-agent"})


class HandlerHeaders:
    """
    Selects headers for handlers.

    :param tokens: Whether token authorization is on; handlers do not get ``authorization`` then.
    :param principals: Whether an application's authorizer decides instead: handlers get the name of the sender, as
        they get that of its named key.
    """

    def __init__(self, tokens: bool, principals: bool = False) -> None:
        self._hidden = hidden_headers(tokens, principals) | _PROTOCOL

    def of(self, call: Call) -> dict[str, str]:
        """Return the headers for the handler of a call; the last of repeated ones counts."""
        hidden = self._hidden
        own = [
            pair
            for pair in call.metadata
            if not (pair[0] in hidden or pair[0].startswith(b"grpc-") or pair[0].endswith(b"-bin"))
        ]
        headers = job_headers(own, hidden)
        if call.principal is not None:
            headers.update(sender_header(call.principal, call.sender is not None))
        return headers


def model_of(message: PredictionsRequest) -> tuple[str, str | None]:
    """
    Return the name and version of the model that a message is for; the version is ``None`` for the default one.

    :raise ParameterRequired: if there is no name.
    """
    if not message.model_name:
        raise ParameterRequired("Parameter model_name is required.")
    return message.model_name, message.model_version or None


def parts_of(message: PredictionsRequest) -> list[Part]:
    """
    Return the inputs of a message: always bytes for the handler, never decoded.

    They are sorted by name: a map has no order, and equal messages must be equal jobs (`scheduling.quarantine`).

    :raise BadRequest: for more inputs than the fields that a form may have.
    """
    inputs = message.input
    if len(inputs) > MOST_PARTS:
        raise BadRequest(f"The message has {len(inputs)} inputs, more than {MOST_PARTS}.")
    # Faster than by ``items()``, each of which costs a message.
    return [Part(name, "", inputs[name], decode=False) for name in sorted(inputs)]
