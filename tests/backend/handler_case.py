# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures for tests of a loaded handler: a handler that follows the test's instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.backend.model_log import model_log
from twisted_serve.testing.local_worker import local_worker
from twisted_serve.wire.messages import Item, Job, Part, Predicted, PredictFailed

# Does what the body of the first request tells it to.
HANDLER = """
import copy, os, sys
from contextvars import copy_context
from fractions import Fraction
from threading import Thread
from ts.metrics.dimension import Dimension
from ts.utils.util import PredictionException
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.protocol.otf_message_handler import send_intermediate_predict_response as by_old_name

def handle(data, context):
    if data is not None:
        return eval(bytes(data[0]["body"]), globals() | locals())

def throw(error):
    raise error

def fork(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    os.waitpid(child, 0)

def stream(context, *chunks):
    for chunk in chunks:
        send_intermediate_predict_response([chunk], context.request_ids, "Intermediate", 200, context)
    return ["last"]
"""


def job(code: str, number: int = 0) -> Job:
    return Job(f"r{number}", {}, [Part("body", "", code.encode())])


class HandlerTestCase(SynchronousTestCase):
    """A loaded handler that does what it is told."""

    settings: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "h.py").write_text(HANDLER)
        self.log = model_log(self)
        context = local_worker(self.dir, "h.py", max_response_size=1000, **self.settings)
        self.worker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def _failure(self, code: str, jobs: int = 1) -> tuple[int, str]:
        answer = self.worker.answer(*(job(code, number) for number in range(jobs)))
        assert isinstance(answer, PredictFailed), answer
        return answer.code, answer.message

    def _items(self, code: str, jobs: int = 1) -> list[Item]:
        answer = self.worker.answer(*(job(code, number) for number in range(jobs)))
        assert isinstance(answer, Predicted), answer
        return answer.items
