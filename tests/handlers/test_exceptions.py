# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.exceptions`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.exceptions import PredictionException


class PredictionExceptionTests(SynchronousTestCase):
    """The exception by which a handler chooses what the client is told."""

    def test_text(self) -> None:
        """Logs show message and status; the status is 500 if none is given."""
        self.assertEqual(str(PredictionException("no such lamp", 404)), "no such lamp : 404")
        self.assertEqual(PredictionException("broken").error_code, 500)
