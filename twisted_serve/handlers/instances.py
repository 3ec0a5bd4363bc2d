# SPDX-License-Identifier: Apache-2.0
"""
Parse requests with ``instances``: the envelopes ``json`` and ``kserve``.
"""

from __future__ import annotations

import json
from typing import Any

from twisted_serve.handlers.envelope import InstancesEnvelope, MalformedRequestError, Opened, plain
from twisted_serve.handlers.rows import decoded_base64, input_of, json_of

__all__ = ["JSONEnvelope", "KServeEnvelope"]


class KServeEnvelope(InstancesEnvelope):
    """
    KServe's V1 protocol: ``{"instances": […]}`` is answered with ``{"predictions": […]}``.

    An ``:explain`` request is answered with ``{"explanations": […]}``.
    """

    def open(self, row: Any) -> Opened:
        """
        Return the instances unchanged.

        :raise MalformedRequestError: if the request is not a JSON object with a list of instances.
        """
        return Opened(_instances(row))

    def close(self, request: Opened, results: Any, index: int) -> Any:
        """Return the response as the text of a JSON object."""
        explained = self.context.get_request_header(index, "explain") == "True"
        return json.dumps({"explanations" if explained else "predictions": results}, indent=2, default=plain)


class JSONEnvelope(InstancesEnvelope):
    """
    Like ``kserve``, but binary values may be given in Base64: ``{"b64": "…"}`` as an instance or as one of its values.

    The response is the text of a JSON object on one line.
    """

    def open(self, row: Any) -> Opened:
        """
        Return the instances, with Base64 decoded to bytes.

        :raise MalformedRequestError: if the request has no list of instances, or a ``b64`` value is not Base64.
        """
        return Opened([_decoded(each, f"instances[{index}]") for index, each in enumerate(_instances(row))])

    def close(self, request: Opened, results: Any, index: int) -> Any:
        """Return the response as the text of a JSON object."""
        return json.dumps({"predictions": results}, default=plain)


def _instances(row: Any) -> list[Any]:
    try:
        request = json_of(input_of(row) or row)
    except ValueError as e:
        raise MalformedRequestError(f"the request is {e}") from e
    if not isinstance(request, dict):
        raise MalformedRequestError(f"the request must be a JSON object with instances, not {type(request).__name__}")
    instances = request.get("instances")
    if not isinstance(instances, list):
        kind = "missing" if "instances" not in request else f"no list, but {type(instances).__name__}"
        raise MalformedRequestError(f"instances is {kind}")
    return instances


def _decoded(instance: Any, where: str) -> Any:
    if not isinstance(instance, dict):
        return instance
    if set(instance) == {"b64"}:
        return _bytes(instance["b64"], f"{where}.b64")
    return {
        name: _bytes(value["b64"], f"{where}.{name}.b64")
        if isinstance(value, dict) and set(value) == {"b64"}
        else value
        for name, value in instance.items()
    }


def _bytes(text: Any, where: str) -> bytes:
    if not isinstance(text, str):
        raise MalformedRequestError(f"{where} must be a string, not {type(text).__name__}")
    try:
        return decoded_base64(text)
    except ValueError as e:
        raise MalformedRequestError(f"{where} is {e}: {text!r:.80}") from e
