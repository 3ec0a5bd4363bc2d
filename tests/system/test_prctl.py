# SPDX-License-Identifier: Apache-2.0
"""Tests for attributes of a process that only Linux has."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.system.prctl import DUMPABLE, NAME, set_attribute

# Of the thread that asks, as the attribute is.
_NAME = Path("/proc/thread-self/comm")


@skipUnless(sys.platform.startswith("linux"), "prctl is Linux's")
class SetAttributeTests(SynchronousTestCase):
    """Tests for `set_attribute`."""

    def test_set(self) -> None:
        """The kernel has the value, of a name its first 15 bytes."""
        before = _NAME.read_bytes().rstrip(b"\n")
        self.addCleanup(set_attribute, NAME, before)
        set_attribute(NAME, b"a name of twenty bytes")
        self.assertEqual(_NAME.read_bytes(), b"a name of twent\n")

    def test_refused(self) -> None:
        """What the kernel refuses is an error, with its number."""
        error = self.assertRaises(OSError, set_attribute, DUMPABLE, 7)
        self.assertEqual(error.errno, errno.EINVAL)

    def test_elsewhere(self) -> None:
        """Nothing happens on other systems."""
        before = _NAME.read_bytes()
        self.patch(sys, "platform", "darwin")
        set_attribute(NAME, b"another")
        self.assertEqual(_NAME.read_bytes(), before)
