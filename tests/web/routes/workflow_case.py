# SPDX-License-Identifier: Apache-2.0
"""What the tests of workflows share: a server with a store of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.testing.server import Answer, MemoryServer
from twisted_serve.wire.messages import Item, Job

SPECIFICATION = """
models:
  min-workers: 1
  max-workers: 2
  batch-size: 4
  max-batch-delay: 5
  retry-attempts: 1
  timeout-ms: 2000
  model:
    url: m
dag:
  before: [model]
  model: [after]
"""


def node_of(job: Job) -> str:
    """Return the node which a job is for: its id says so."""
    return job.request_id.split(".")[-2]


class WorkflowTestCase(SynchronousTestCase):
    """A server with a workflow in its store: a function, a model, a function; nodes answer what they are told to."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.jobs: list[Job] = []
        self.answers: dict[str, Callable[[Job], Item]] = {}
        self.server = MemoryServer(self.options, respond=self.respond)
        self.addCleanup(self.server.close)
        self.server.add_model("m", {})
        self.server.add_workflow("w", SPECIFICATION)

    def respond(self, jobs: list[Job]) -> list[Item]:
        self.jobs += jobs
        return [self.answers.get(node_of(job), self.mark)(job) for job in jobs]

    def mark(self, job: Job) -> Item:
        """Answer with the node's name after the input."""
        return Item(job.request_id, 200, "", {}, job.parts[0].value + b" " + node_of(job).encode())

    def manage(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = b"" if body is None else json.dumps(body).encode()
        return self.server.request(method, path, self.server.key(TokenKind.MANAGEMENT), headers, data)

    def predict(self, path: str = "/wfpredict/w", body: bytes = b"in", method: str = "POST", **headers: str) -> Answer:
        return self.server.request(method, path, self.server.key(TokenKind.INFERENCE), headers, body)

    def assertError(self, answer: Answer, status: int, kind: str, message: str, reason: str | None = None) -> None:
        self.assertEqual((answer.status, answer.json["type"]), (status, kind), answer)
        self.assertEqual(answer.json["message"], message)
        if reason is not None:
            self.assertIn(reason, answer.json["reason"])

    def catalogue(self) -> Catalogue:
        tree = self.server.server._tree
        assert tree is not None
        catalogue = tree.getServiceNamed("models").catalogue
        assert isinstance(catalogue, Catalogue)
        return catalogue

    def assertNothing(self) -> None:
        """See that nothing of any workflow is there: no node, no worker, no file."""
        self.assertEqual(self.manage("GET", "/workflows").json, {"workflows": []})
        self.assertEqual(list(self.catalogue()), [])
        self.assertEqual(self.server.provider.alive, [])
        self.assertEqual(list(self.server.directory.glob("twisted_serve-*/workflows/*")), [])
