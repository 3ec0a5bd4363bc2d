# SPDX-License-Identifier: Apache-2.0
"""Tests for the machine's figures."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.modules import replace_modules
from twisted_serve.metrics.system import nvml, read_gpus, read_machine
from twisted_serve.metrics.torchserve.definitions import default_catalogue


class Library(ModuleType):
    """NVIDIA's library, as far as it is used, with two devices."""

    def nvmlInit(self) -> None:
        """Find the driver."""

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:
        return SimpleNamespace(used=(device + 1) << 30, total=4 << 30)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        return SimpleNamespace(gpu=10 * device)


class SystemTests(SynchronousTestCase):
    """Tests for `read_machine` and `read_gpus`."""

    def test_machine(self) -> None:
        """Every figure is one of the predecessor's, and makes sense."""
        figures = {figure.name: figure for figure in read_machine()}
        self.assertEqual(len(figures), 7)
        for figure in figures.values():
            self.assertEqual(len(figure.labels) + 1, len(default_catalogue().server[figure.name].dimensions))
            self.assertGreaterEqual(figure.value, 0)
        for name in ("CPUUtilization", "MemoryUtilization", "DiskUtilization"):
            self.assertLessEqual(figures[name].value, 100)
        self.assertGreater(figures["MemoryAvailable"].value, 1)

    def test_gpus(self) -> None:
        """Each device has its number."""
        found = [(figure.name, figure.labels, figure.value) for figure in read_gpus(Library("pynvml"))]
        self.assertEqual(
            found,
            [
                ("GPUMemoryUtilization", ("Host", "0"), 25.0),
                ("GPUMemoryUsed", ("Host", "0"), 1024.0),
                ("GPUUtilization", ("Host", "0"), 0.0),
                ("GPUMemoryUtilization", ("Host", "1"), 50.0),
                ("GPUMemoryUsed", ("Host", "1"), 2048.0),
                ("GPUUtilization", ("Host", "1"), 10.0),
            ],
        )

    def test_no_library(self) -> None:
        """Without the library, or a driver for it, there is nothing to read."""

        class Broken(Library):
            def nvmlInit(self) -> None:
                raise RuntimeError("no driver")

        for module, found in ((None, False), (Broken("pynvml"), False), (Library("pynvml"), True)):
            replace_modules(self, {"pynvml": module})
            self.assertEqual(nvml() is not None, found)
