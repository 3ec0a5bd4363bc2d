# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures for tests of envelopes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Item, Job, Part, Predicted

# Answers what it gets, and remembers how it was called.
ECHO = """
calls = []

def handle(data, context):
    if data is None:
        return None
    calls.append(len(data))
    return [repr(each) for each in data]
"""


class EnvelopeTestCase(SynchronousTestCase):
    """A handler in an envelope."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()

    def _serve(self, envelope: str, handler: str = ECHO, **settings: Any) -> LocalWorker:
        (self.dir / "h.py").write_text(handler)
        context = local_worker(self.dir, "h.py", envelope=envelope, **settings)
        worker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return worker

    def _items(self, worker: LocalWorker, *requests: Any, headers: dict[str, str] | None = None) -> list[Item]:
        jobs = [
            Job(f"r{index}", headers or {}, [Part("body", "application/json", self._text(each))])
            for index, each in enumerate(requests)
        ]
        answer = worker.answer(*jobs)
        assert isinstance(answer, Predicted), answer
        return answer.items

    def _text(self, request: Any) -> bytes:
        return request if isinstance(request, bytes) else json.dumps(request).encode()

    def _answers(self, worker: LocalWorker, *requests: Any, **options: Any) -> list[Any]:
        items = self._items(worker, *requests, **options)
        self.assertEqual([item.status for item in items], [200] * len(items))
        return [json.loads(item.body) for item in items]

    def _refusal(self, worker: LocalWorker, request: Any) -> str:
        (item,) = self._items(worker, request)
        error = json.loads(item.body)
        self.assertEqual((item.status, error["code"], error["type"]), (400, 400, "BadRequestException"))
        self.assertEqual(item.headers, {"content-type": "application/json"})
        message: str = error["message"]
        return message
