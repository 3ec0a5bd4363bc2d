# SPDX-License-Identifier: Apache-2.0
"""
Generate the messages between the server and a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from twisted_serve.wire.messages import (
    Cancel,
    FromWorker,
    Item,
    Job,
    Loaded,
    LoadFailed,
    LoadModel,
    Part,
    Predict,
    Predicted,
    PredictFailed,
    Reading,
    StreamChunk,
    ToWorker,
)

__all__ = [
    "chunkings",
    "from_worker",
    "items",
    "jobs",
    "json_objects",
    "messages",
    "parts",
    "predicts",
    "readings",
    "to_worker",
]

_batch_ids = st.integers(0, 2**63)
_headers = st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3)


def json_objects() -> SearchStrategy[dict[str, Any]]:
    """Generate the nested contents of a manifest or a ``model-config.yaml``."""
    leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
    )
    return st.dictionaries(st.text(), values, max_size=4)


def parts() -> SearchStrategy[Part]:
    """Generate inputs of a request: bodies and form fields, some declared as JSON or text."""
    types = st.sampled_from(["", "application/json", "text/plain", "image/png"]) | st.text(max_size=10)
    return st.builds(Part, st.text(max_size=10), types, st.binary(), st.booleans())


def jobs() -> SearchStrategy[Job]:
    """Generate requests with any number of parts."""
    return st.builds(Job, st.uuids().map(str), _headers, st.lists(parts(), max_size=3))


def items() -> SearchStrategy[Item]:
    """Generate responses to single requests."""
    phrases = st.text(max_size=10)
    return st.builds(Item, st.uuids().map(str), st.integers(200, 999), phrases, _headers, st.binary(), st.booleans())


def readings() -> SearchStrategy[Reading]:
    """Generate metric values from a worker, of a few series or of arbitrary ones."""
    names = st.sampled_from(["PredictionTime", "Cats"]) | st.text(max_size=10)
    labels = st.sampled_from(["ModelName:m,Level:Model", "Level:Model"]) | st.text(max_size=10)
    kinds = st.sampled_from(["COUNTER", "GAUGE", "HISTOGRAM"]) | st.text(max_size=10)
    values = st.floats(allow_nan=False)
    texts = st.text(max_size=10)
    return st.builds(Reading, names, texts, values, labels, kinds, texts, st.integers(0, 2**40), texts)


def predicts() -> SearchStrategy[Predict]:
    """Generate batches of requests with distinct ids."""
    batch = st.lists(jobs(), max_size=4, unique_by=lambda job: job.request_id)
    return st.builds(Predict, _batch_ids, batch)


def to_worker() -> SearchStrategy[ToWorker]:
    """Generate messages from the server."""
    loads = st.builds(
        LoadModel,
        batch_size=st.integers(1, 2**31),
        manifest=json_objects(),
        model_config=json_objects(),
        gpu_id=st.none() | st.integers(0, 15),
        max_response_size=st.integers(0, 2**40),
    )
    return st.one_of(loads, predicts(), st.builds(Cancel))


def from_worker() -> SearchStrategy[FromWorker]:
    """Generate messages from a worker."""
    metrics = st.lists(readings(), max_size=3)
    predicted = st.builds(Predicted, _batch_ids, st.lists(items(), max_size=4), st.floats(0, 1e6), metrics)
    chunks = st.builds(StreamChunk, _batch_ids, items())
    codes = st.integers(200, 999)
    failed = st.builds(PredictFailed, _batch_ids, codes, st.text(), metrics)
    return st.one_of(st.builds(Loaded), st.builds(LoadFailed, codes), predicted, failed, chunks)


def messages() -> SearchStrategy[ToWorker | FromWorker]:
    """Generate messages in either direction."""
    return to_worker() | from_worker()


@st.composite
def chunkings(draw: Callable[[SearchStrategy[Any]], Any], data: bytes) -> list[bytes]:
    """Generate ways in which a transport may split ``data`` into non-empty chunks, down to single bytes."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=20)))
    if draw(st.booleans()) and len(data) < 200:
        cuts = list(range(1, len(data)))
    edges = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
