# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.micro_batching`, with real threads that wait for each other, not for time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, lists
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.micro_batching import HANDLER_METHODS, MicroBatching
from twisted_serve.testing.local_worker import local_worker
from twisted_serve.wire.messages import Job, Part, Predicted, PredictFailed

# Long enough for any machine; nothing waits so long unless it hangs.
LIMIT = 60

HANDLER = """
from ts.torch_handler.base_handler import BaseHandler
from ts.handler_utils.micro_batching import MicroBatching

class Handler(BaseHandler):
    def initialize(self, context):
        self.handle = MicroBatching(self, micro_batch_size=2, parallelism={"preprocess": 2})
    def preprocess(self, data):
        return [int(row["body"]) for row in data]
    def inference(self, data):
        return [(each * 2, self.handle.get_micro_batch_idx()) for each in data]
    def postprocess(self, data):
        return [list(each) for each in data]
    def describe_handle(self):
        return {"stages": list(self.handle.parallelism.items())}
    def get_insights(self, tensor_data, raw_data, target):
        return tensor_data
"""


class Stages:
    """A handler whose stages can be replaced."""

    context: Any = None

    def preprocess(self, data: Any) -> Any:
        return data

    def inference(self, data: Any) -> Any:
        return data

    def postprocess(self, data: Any) -> Any:
        return data


class MicroBatchingTests(SynchronousTestCase):
    """A batch in pieces."""

    def _micro(self, handler: Any, *arguments: Any) -> MicroBatching:
        micro = MicroBatching(handler, *arguments)
        self.addCleanup(micro.shutdown)
        return micro

    def test_in_worker(self) -> None:
        """It takes the place of ``handle``: pieces keep their order, and each knows its place."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "h.py").write_text(HANDLER)
        with local_worker(directory, "h.py") as worker:
            items = worker.predict(*(Part("body", "", str(each).encode()) for each in range(5)))
            self.assertEqual([json.loads(each.body) for each in items], [[0, 0], [2, 0], [4, 1], [6, 1], [8, 2]])
            described = worker.answer(Job("r", {"describe": "True"}, []))
            explained = worker.answer(Job("r", {"explain": "True"}, [Part("body", "", b"7")]))
            failed = worker.answer(Job("r", {}, [Part("body", "", b"seven")]))
            self.assertEqual(len(worker.predict(Part("body", "", b"1"))), 1)
        assert isinstance(described, Predicted)
        assert isinstance(explained, Predicted)
        stages = [["preprocess", 2], ["inference", 1], ["postprocess", 1]]
        self.assertEqual(json.loads(described.items[0].body), {"stages": stages})
        self.assertEqual(explained.items[0].body, b"7")
        assert isinstance(failed, PredictFailed), failed
        self.assertEqual((failed.code, failed.message), (503, "Prediction failed"))
        self.assertTrue(failed.reason.startswith("ValueError: invalid literal"), failed.reason)

    @given(lists(integers()), integers(1, 5), integers(1, 3))
    def test_order(self, data: list[int], size: int, threads: int) -> None:
        """Whatever the sizes, each request gets the answer at its place."""
        micro = MicroBatching(Stages(), size, dict.fromkeys(HANDLER_METHODS, threads))
        try:
            self.assertEqual(micro(data, None), data)
        finally:
            micro.shutdown()

    def test_at_the_same_time(self) -> None:
        """While one piece is in the model, the next is being prepared."""
        handler = Stages()
        together = threading.Barrier(2)

        def preprocess(data: list[int]) -> list[int]:
            if data == [2]:
                together.wait(LIMIT)
            return data

        def inference(data: list[int]) -> list[int]:
            if data == [1]:
                together.wait(LIMIT)
            return data

        handler.preprocess, handler.inference = preprocess, inference  # type: ignore[method-assign]
        self.assertEqual(self._micro(handler)([1, 2], None), [1, 2])

    def test_failure(self) -> None:
        """An exception in any stage fails the batch immediately; the next batch is not affected."""
        for stage in HANDLER_METHODS:
            handler = Stages()

            def fail(data: list[int]) -> list[int]:
                if data == [2]:
                    raise LookupError("two")
                return data

            setattr(handler, stage, fail)
            micro = self._micro(handler)
            self.assertRaises(LookupError, micro, [1, 2, 3], None)
            self.assertEqual(micro([4], None), [4])

    def test_exit(self) -> None:
        """A stage that wants to end the process ends the call: it does not hang."""
        handler = Stages()

        def leave(data: list[int]) -> list[int]:
            raise SystemExit(3)

        handler.inference = leave  # type: ignore[method-assign]
        self.assertRaises(SystemExit, self._micro(handler), [1], None)

    def test_abandoned(self) -> None:
        """Pieces that have not begun when one fails are left."""
        handler = Stages()
        seen: list[int] = []

        def preprocess(data: list[int]) -> list[int]:
            if data == [1]:
                raise LookupError("one")
            seen.extend(data)
            # The failure is noticed while this piece is on its way.
            threading.Event().wait(0.01)
            return data

        handler.preprocess = preprocess  # type: ignore[method-assign]
        self.assertRaises(LookupError, self._micro(handler), list(range(1, 1000)), None)
        self.assertLess(len(seen), 999)

    def test_settings(self) -> None:
        """Settings that make no sense are refused, and named."""
        for arguments, message in (
            ((0,), "micro_batch_size must be at least 1, not 0"),
            ((1, {"inference": 0}), "parallelism of inference must be at least 1, not 0"),
            (
                (1, {"prediction": 1}),
                "parallelism names 'prediction', which is none of preprocess, inference, postprocess",
            ),
        ):
            with self.assertRaises(ValueError) as raised:
                MicroBatching(Stages(), *arguments)
            self.assertEqual(str(raised.exception), message)

    def test_change(self) -> None:
        """The threads can be set anew between batches."""
        micro = self._micro(Stages())
        self.assertEqual(micro([1, 2], None), [1, 2])
        micro.parallelism = {"inference": 3}
        self.assertEqual(micro.parallelism, {"preprocess": 1, "inference": 3, "postprocess": 1})
        self.assertEqual(micro([1, 2], None), [1, 2])
