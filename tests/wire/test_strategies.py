# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.testing.strategies.wire`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.strategies.wire import chunkings, predicts
from twisted_serve.wire.messages import Predict


class StrategyTests(SynchronousTestCase):
    """Tests for the assumptions of other tests."""

    @given(st.data(), st.binary())
    def test_chunkings(self, data: st.DataObject, whole: bytes) -> None:
        """The pieces of a chunking are the whole, and only of nothing is a piece empty."""
        pieces = data.draw(chunkings(whole))
        self.assertEqual(b"".join(pieces), whole)
        self.assertTrue(all(pieces) or not whole)

    @given(predicts())
    def test_predicts(self, predict: Predict) -> None:
        """No two requests of a batch have the same id."""
        self.assertEqual(len({job.request_id for job in predict.jobs}), len(predict.jobs))
