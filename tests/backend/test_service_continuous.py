# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.service`: requests that are to come again."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.backend.handler_case import HandlerTestCase, job
from twisted_serve.wire.messages import Job, Part, Predicted


class ContinuousTests(HandlerTestCase):
    """How a handler of a model with continuous batching says that it is not done with a request."""

    settings: ClassVar[dict[str, Any]] = {"continuous": True}

    def _more(self, code: str, jobs: int = 1) -> list[bool]:
        return [item.more for item in self._items(code, jobs)]

    def test_criteria(self) -> None:
        """A criterion is asked about its result: ``False`` says that there is more, ``None`` that it is no stream."""
        criteria = "[lambda text: text != 'a', lambda text: True, lambda text: None]"
        code = f"(setattr(context, 'stopping_criteria', {criteria}), ['a', 'b', 'c'])[1]"
        self.assertEqual(self._more(code, 3), [True, False, False])

    def test_criteria_stay(self) -> None:
        """Criteria are kept until others are set, and may be a dict; without criteria responses are complete."""
        self.assertEqual(self._more("['a']"), [False])
        self.assertEqual(self._more("(setattr(context, 'stopping_criteria', {0: lambda _: False}), ['a'])[1]"), [True])
        self.assertEqual(self._more("['a']"), [True])
        self.assertEqual(self._more("(setattr(context, 'stopping_criteria', None), ['a'])[1]"), [False])

    def test_header(self) -> None:
        """Without criteria a header says so; clients do not see it."""
        for value, more in (("true", True), ("false", False), ("yes", False)):
            [item] = self._items(f"(context.set_response_header(0, 'TS_stream_next', {value!r}), ['a'])[1]")
            self.assertEqual((item.more, item.headers), (more, {}))

    def test_criterion_sets_header(self) -> None:
        """Headers that a criterion sets are sent, for any response of the batch."""
        criteria = "[lambda _: None, lambda _: context.set_response_header(0, 'x-end', 'yes')]"
        items = self._items(f"(setattr(context, 'stopping_criteria', {criteria}), ['a', 'b'])[1]", 2)
        self.assertEqual([item.headers for item in items], [{"x-end": "yes"}, {}])

    def test_broken_criteria(self) -> None:
        """A criterion that raises, or is missing, fails the batch as the handler would have."""
        for criteria in ("[lambda _: 1 / 0, lambda _: True]", "[lambda _: True]", "[1, 2]"):
            failed = self._failure(f"(setattr(context, 'stopping_criteria', {criteria}), ['a', 'b'])[1]", 2)
            self.assertEqual(failed, (503, "Prediction failed"))
        self.assertIn("ZeroDivisionError", self.log.read_text())

    def test_refused(self) -> None:
        """A piece that cannot be sent is its request's end."""
        code = "(setattr(context, 'stopping_criteria', [lambda _: False] * 2), ['a' * 1001, 'b'])[1]"
        self.assertEqual([(item.status, item.more) for item in self._items(code, 2)], [(500, False), (200, True)])

    def test_repeated(self) -> None:
        """A request that goes on has no inputs, but its headers."""
        answer = self.worker.answer(
            job("[repr(data[1]), context.get_request_header(1, 'X')]", 0), Job("r1", {"x": "y"}, [])
        )
        assert isinstance(answer, Predicted)
        self.assertEqual([item.body for item in answer.items], [b"{}", b"y"])

    def test_description(self) -> None:
        """A description is whole, whatever criterion is left from the call before."""
        self._items("(setattr(context, 'stopping_criteria', [lambda _: False]), ['a'])[1]")
        answer = self.worker.answer(Job("d", {"describe": "True"}, [Part("body", "", b"['it is a model']")]))
        assert isinstance(answer, Predicted)
        self.assertFalse(answer.items[0].more)


class NotContinuousTests(HandlerTestCase):
    """The same of a model without it."""

    def test_whole(self) -> None:
        """Criteria are not asked; each answer is whole."""
        self.assertFalse(self._items("(setattr(context, 'stopping_criteria', [lambda _: 1 / 0]), ['a'])[1]")[0].more)
