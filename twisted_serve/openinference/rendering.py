# SPDX-License-Identifier: Apache-2.0
"""
Render a request as JSON for a handler, with the data of its tensors in pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from twisted_serve.openinference.tensors import BASE64

# The length of a tensor's data where it is binary: handlers get JSON.
_BINARY_SIZE = "binary_data_size"


@frozen
class RenderedInput:
    """
    An input with its data as JSON text already, because as Python objects it would take too much memory.

    :ivar members: Its members except the data.
    :ivar data: The elements, some at a time.
    """

    members: Mapping[str, Any]
    data: Iterator[str]

    @classmethod
    def of(cls, members: Mapping[str, Any], data: Iterator[str], base64: bool) -> RenderedInput:
        """
        Return an input whose data was binary.

        :param base64: Whether its elements are base64, which its parameters say then.
        """
        parameters = {name: value for name, value in (members.get("parameters") or {}).items() if name != _BINARY_SIZE}
        if base64:
            parameters |= BASE64
        members = {name: value for name, value in members.items() if name != "parameters"}
        return cls({**members, "parameters": parameters} if parameters else members, data)


def render_request(members: Mapping[str, Any], inputs: Sequence[RenderedInput | Mapping[str, Any]]) -> bytes:
    """
    Render a request.

    :param members: Its members; ``inputs`` among them is ignored.
    :param inputs: Its inputs, with their data.
    """
    text = bytearray(json.dumps({name: value for name, value in members.items() if name != "inputs"})[:-1].encode())
    text += b'"inputs": [' if len(text) == 1 else b', "inputs": ['
    for i, each in enumerate(inputs):
        text += b", " if i else b""
        if not isinstance(each, RenderedInput):
            # Rendered in pieces, as it was parsed.
            text += "".join(json.JSONEncoder().iterencode(each)).encode()
            continue
        text += json.dumps(each.members)[:-1].encode() + b', "data": ['
        for at, piece in enumerate(each.data):
            text += (b"," if at else b"") + piece.encode("utf-8")
        text += b"]}"
    text += b"]}"
    return bytes(text)
