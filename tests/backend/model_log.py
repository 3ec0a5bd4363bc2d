# SPDX-License-Identifier: Apache-2.0
"""Shared fixture for tests of the worker's side: the model log, as a file."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.backend import faults


def model_log(test: SynchronousTestCase) -> Path:
    """Redirect a worker's error messages to a file until the test ends, and return its path."""
    path = Path(test.mktemp()).resolve()
    file = path.open("wb")
    test.addCleanup(file.close)
    test.patch(faults, "STDERR", file.fileno())
    return path
