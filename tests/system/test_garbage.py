# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.system.garbage`."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import gc, weakref
from twisted_serve.system.garbage import keep_all

class Thing: pass

before = Thing()
garbage = Thing()
garbage.itself = garbage
gone = weakref.ref(garbage)
del garbage
keep_all()
print(gone() is None, any(each is before for each in gc.get_objects()), gc.get_freeze_count() > 1000, gc.isenabled())
"""


@pytest.mark.integration
def test_objects_of_the_start() -> None:
    """What exists is not collected again, garbage is collected once more, and collections go on."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True False True True\n", done.stderr
