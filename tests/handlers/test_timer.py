# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.timer`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.modules import replace_modules
from twisted_serve.handlers.context import Context
from twisted_serve.handlers.metrics import MetricsCacheYamlImpl
from twisted_serve.handlers.timer import timed


class Handler:
    context: Any = None

    @timed
    def inference(self, data: int) -> int:
        return data + 1


class Device:
    """Stands where torch is: a CUDA device on which work is queued."""

    def __init__(self) -> None:
        self.cuda = self
        self.waits = 0

    def is_initialized(self) -> bool:
        return True

    def synchronize(self) -> None:
        self.waits += 1


class TimedTests(SynchronousTestCase):
    """Methods that are measured when the model's settings ask for it."""

    def _lines(self, settings: Any) -> list[str]:
        lines: list[str] = []
        handler = Handler()
        metrics = MetricsCacheYamlImpl("m", write=lines.append)
        handler.context = Context("m", "/", None, 1, None, "0", metrics=metrics, model_yaml_config=settings)
        self.assertEqual(handler.inference(1), 2)
        return lines

    def test_measured(self) -> None:
        """With ``profile`` on, the duration is a gauge under the method's name."""
        (line,) = self._lines({"handler": {"profile": True}})
        self.assertRegex(line, r"^\[METRICS\]ts_handler_inference\.Milliseconds:[0-9.e-]+\|.*type:GAUGE")

    def test_not_measured(self) -> None:
        """Otherwise nothing happens but the call, whatever the settings are."""
        forms: list[Any] = [None, {}, {"handler": None}, {"handler": {"profile": False}}, {"handler": []}, []]
        for settings in forms:
            self.assertEqual(self._lines(settings), [])

    def test_no_context(self) -> None:
        """A method can be called before there is any context."""
        self.assertEqual(Handler().inference(1), 2)

    def test_device(self) -> None:
        """Work queued on a device is waited for, before and after."""
        device = Device()
        replace_modules(self, {"torch": device})
        self.assertEqual(len(self._lines({"handler": {"profile": True}})), 1)
        self.assertEqual(device.waits, 2)

    def test_name(self) -> None:
        """A measured method is still itself."""
        self.assertEqual(Handler.inference.__name__, "inference")
