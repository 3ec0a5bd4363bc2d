# SPDX-License-Identifier: Apache-2.0
"""Tests for built-in handlers and envelopes, asked over HTTP."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

torch = pytest.importorskip("torch", reason="torch is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

# The brightest channel is the likeliest class.
CHANNELS = """
import torch

class Channels(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(3))

    def load_state_dict(self, state):
        super().load_state_dict({"bias": state["bias"]})

    def forward(self, x):
        return x.mean(dim=(2, 3)) + self.bias
"""


class Note:
    """Something that is not a tensor."""

    def __reduce__(self) -> Any:
        return print, ("noted",)


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with an image classifier whose weights hold more than tensors."""
    server = make_module_server(service_envelope="kserve", allow_pickled_weights="true")
    server.add_model("colours", "", batchSize=4, maxBatchDelay=200, batchPolicy="window")
    directory = Path(server.store, "colours")
    (directory / "model.py").write_text(CHANNELS)
    (directory / "index_to_name.json").write_text('{"0": "red", "1": "green", "2": "blue"}')
    torch.save({"bias": torch.zeros(3), "note": Note()}, directory / "weights.pt")
    manifest = json.loads((directory / "MAR-INF" / "MANIFEST.json").read_text())
    manifest["model"].update(handler="image_classifier", modelFile="model.py", serializedFile="weights.pt")
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    return server.start("--models", "colours=colours")


def ask(server: Server, *colours: str) -> Any:
    """Have pictures of these colours classified by one request."""
    instances = []
    for colour in colours:
        file = io.BytesIO()
        Image.new("RGB", (300, 260), colour).save(file, "PNG")
        instances.append({"data": base64.b64encode(file.getvalue()).decode()})
    return server.predict("colours", json.dumps({"instances": instances}).encode())


def test_batch(server: Server) -> None:
    """Requests that share a batch get their own predictions, each for its pictures; a malformed one gets 400."""
    asked = [("red", "blue"), ("lime",), ("blue", "lime", "red")]
    with ThreadPoolExecutor(len(asked) + 1) as threads:
        malformed = threads.submit(server.predict, "colours", b'{"instances": 3}')
        answers = list(threads.map(lambda colours: ask(server, *colours), asked))
    names = {"red": "red", "lime": "green", "blue": "blue"}
    for answer, colours in zip(answers, asked, strict=True):
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        likeliest = [next(iter(each)) for each in answer.json()["predictions"]]
        assert likeliest == [names[each] for each in colours]
    assert malformed.result().status == 400
    assert malformed.result().json()["message"] == "instances is no list, but int"


def test_broken_image(server: Server) -> None:
    """What is no picture is the client's error."""
    answer = server.predict("colours", b'{"instances": [{"data": "aGVsbG8="}]}')
    assert (answer.status, answer.json()["message"]) == (400, "the input is no image that Pillow knows")
