# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/handlers.md``: its handlers, loaded and asked as a worker does."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.bad_input import CASES
from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Job, Part, Predicted, PredictFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.docs.conftest import ReadBlocks


@pytest.fixture
def load(read_blocks: ReadBlocks, tmp_path: Path) -> Callable[..., AbstractContextManager[LocalWorker]]:
    """Return the function which loads the page's handler that has a certain line."""

    def load(line: str, **settings: Any) -> AbstractContextManager[LocalWorker]:
        [text] = [block.text for block in read_blocks("handlers.md", "python") if line in block.text]
        (tmp_path / "handler.py").write_text(text)
        manifest = {"model": {"modelName": "four", "serializedFile": "model.pt"}}
        return local_worker(tmp_path, "handler.py", manifest=manifest, **settings)

    return load


def test_all_are_tested(read_blocks: ReadBlocks) -> None:
    """The page has these handlers and no other."""
    assert len(read_blocks("handlers.md", "python")) == 9


def test_function(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The function has its weights after the call at load time, and answers each request."""
    with load("global weights") as worker:
        items = worker.predict(Part("body", "", b"123"), Part("body", "", b""))
    assert [json.loads(item.body) for item in items] == [{"length": 12}, {"length": 0}]


def test_asynchronous(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The coroutine function answers; what it makes of the event loop works."""
    with load("class Patient") as worker:
        [item] = worker.predict(Part("body", "", b"123"))
    assert item.body == b"waited for 3 bytes"


def test_continuous(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The countdown goes on with each request until that is done, while others join, and forgets who has gone."""
    with load("class Countdown", continuous=True) as worker:
        told: dict[str, list[tuple[bytes, bool]]] = {}
        for jobs in ([("a", b"2")], [("b", b"0"), ("a", None)], [("a", None), ("c", b"9")], [("d", b"1")]):
            parts = [(name, [] if number is None else [Part("body", "", number)]) for name, number in jobs]
            answer = worker.answer(*(Job(name, {}, each) for name, each in parts))
            assert isinstance(answer, Predicted)
            for item in answer.items:
                told.setdefault(item.request_id, []).append((item.body, item.more))
    assert told["a"] == [(b"2 ", True), (b"1 ", True), (b"0 ", False)]
    assert told["b"] == [(b"0 ", False)]
    assert (told["c"], told["d"]) == ([(b"9 ", True)], [(b"1 ", True)])


def test_sequence(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The counter keeps the sums of sequences apart, and tells clients the names."""
    with load("class Counter") as worker:
        bodies = []
        for name, number in (("a", b"1"), ("b", b"10"), ("a", b"2")):
            answer = worker.answer(Job("r", {"ts_request_sequence_id": name}, [Part("body", "", number)]))
            assert isinstance(answer, Predicted)
            assert answer.items[0].headers == {"ts_request_sequence_id": name}
            bodies.append(answer.items[0].body)
    assert bodies == [b"1", b"10", b"3"]


def test_class(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The class is initialized from the model's configuration."""
    with load("class Greeter", model_config={"greeting": "Good morning"}) as worker:
        [item] = worker.predict(Part("name", "", b"Ada"))
    assert item.body == b"Good morning, Ada"


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_base_handler(load: Callable[..., AbstractContextManager[LocalWorker]], tmp_path: Path) -> None:
    """The subclass of BaseHandler loads TorchScript and answers JSON."""
    torch = pytest.importorskip("torch")

    class Double(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x * 2

    torch.jit.save(torch.jit.trace(Double(), torch.zeros(1, 2)), str(tmp_path / "model.pt"))
    with load("class Doubler") as worker:
        items = worker.predict(Part("body", "application/json", b"[1, 2]"), Part("data", "application/json", b"[3, 4]"))
    assert [json.loads(item.body) for item in items] == [[2.0, 4.0], [6.0, 8.0]]


def test_explained(load: Callable[..., AbstractContextManager[LocalWorker]], tmp_path: Path) -> None:
    """The handler explains the class that the request asks for, and describes itself."""
    torch = pytest.importorskip("torch")
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.zeros(1, 2)), str(tmp_path / "model.pt"))
    body = json.dumps({"values": [1.0, 2.0], "weights": [3.0, 4.0], "target": 1}).encode()
    with load("class Explained") as worker:
        explained = worker.answer(Job("1", {"explain": "True"}, [Part("body", "application/json", body)]))
        described = worker.answer(Job("2", {"describe": "True"}, []))
    assert isinstance(explained, Predicted)
    assert json.loads(explained.items[0].body) == {"target": 1, "contributions": [4.0, 8.0]}
    assert isinstance(described, Predicted)
    assert "explains" in json.loads(described.items[0].body)


def test_error(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """The client's fault is told in the handler's words; any other exception is 503."""
    with load("an empty body is no picture") as worker:
        assert worker.predict(Part("body", "", b"picture"))[0].body == b"fine"
        failed = worker.answer(Job("1", {}, [Part("body", "", b"")]))
        assert isinstance(failed, PredictFailed)
        assert (failed.code, failed.message) == (400, "an empty body is no picture")
        failed = worker.answer(Job("2", {}, []))
        assert isinstance(failed, PredictFailed)
        assert (failed.code, failed.message) == (503, "Prediction failed")


def test_tables_of_errors() -> None:
    """The tables say of every case of the integration test what its client gets, and where the reason is."""
    section = (Path(__file__).parents[2] / "docs/handlers.md").read_text().split("\n## Errors\n")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    rows = {row: (gets, reason) for row, gets, reason in cells if not row.startswith(("---", "what "))}
    assert set(rows) == {case.row for case in CASES}
    for case in CASES:
        gets, reason = rows[case.row]
        assert str(case.status) in gets or case.row.startswith("`PredictionException"), case
        assert ("log" in reason) == bool(case.logged), case
        # What the client reads is either quoted, or is the reason.
        assert f"`{case.says}`" in gets or "answer" in reason, case


def test_streaming(load: Callable[..., AbstractContextManager[LocalWorker]]) -> None:
    """Pieces come before the last one, and stop when every client has gone."""
    with load("send_intermediate_predict_response") as worker:
        answer = worker.answer(Job("1", {}, [Part("body", "", b"")]))
        assert isinstance(answer, Predicted)
        assert answer.items[0].body == b"three"
        assert [chunk.item.body for chunk in worker.outbox.sent] == [b"one ", b"two "]  # type: ignore[union-attr]
        worker.outbox.cancelled.add("2")
        worker.answer(Job("2", {}, [Part("body", "", b"")]))
        assert len(worker.outbox.sent) == 2
