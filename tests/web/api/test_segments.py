# SPDX-License-Identifier: Apache-2.0
"""Tests for the first segments that are taken."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import endpoints
from twisted_serve.web.api.segments import CLAIMED, RESERVED


class SegmentTests(SynchronousTestCase):
    """Tests for ``CLAIMED`` and ``RESERVED``."""

    def test_reserved_for_plug_ins(self) -> None:
        """What plug-ins are told is reserved is what the routes reserve."""
        self.assertEqual(endpoints.RESERVED, RESERVED)

    def test_reserved_are_claimed(self) -> None:
        """A reserved segment is some route's, and not every route's is reserved: plug-ins may replace predictions."""
        self.assertLess(RESERVED, CLAIMED)
        self.assertIn("predictions", CLAIMED - RESERVED)
