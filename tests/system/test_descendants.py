# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.system.descendants``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.system.descendants import descendants

# Starts a program that starts one, and waits.
PROGRAM = """
import subprocess, sys
inner = subprocess.Popen(["sleep", "60"])
print(inner.pid, flush=True)
inner.wait()
"""


class DescendantsTests(SynchronousTestCase):
    """Tests for `descendants`."""

    def proc(self, started: Mapping[int, Sequence[int]], others: int, lists: bool) -> Path:
        """Make a directory as ``/proc`` is: ``started`` by parents, other processes, lists of children or none."""
        proc = Path(self.mktemp()).resolve()
        parents = {child: parent for parent, children in started.items() for child in children}
        for process in {*started, *parents, *range(100_000, 100_000 + others)}:
            task = proc / str(process) / "task" / str(process)
            task.mkdir(parents=True)
            (proc / str(process) / "stat").write_text(f"{process} (a) b) S {parents.get(process, 1)} 0 0")
            if lists:
                (task / "children").write_text("".join(f"{child} " for child in started.get(process, ())))
        return proc

    def test_all(self) -> None:
        """Each process below is found, whichever way there is, and no other."""
        started = {10: [11, 12], 11: [13], 13: [14], 20: [21]}
        for others, lists in ((0, False), (0, True), (1200, False), (1200, True)):
            with self.subTest(others=others, lists=lists):
                self.assertEqual(sorted(descendants(10, self.proc(started, others, lists))), [11, 12, 13, 14])

    def test_threads(self) -> None:
        """What another thread than the first has started is found, too."""
        proc = self.proc({10: [11]}, 1200, lists=True)
        (proc / "10" / "task" / "99").mkdir()
        (proc / "10" / "task" / "99" / "children").write_text("12 ")
        self.assertEqual(sorted(descendants(10, proc)), [11, 12])

    def test_not_asked(self) -> None:
        """Where there are many processes and lists of children, not all of them are asked."""
        proc = self.proc({10: [11]}, 1200, lists=True)
        (proc / "11" / "stat").unlink()
        self.assertEqual(descendants(10, proc), [11])

    def test_none(self) -> None:
        """Without ``/proc`` there are none, and none of a process that has gone."""
        self.assertEqual(descendants(10, Path(self.mktemp())), [])
        self.assertEqual(descendants(9, self.proc({10: [11]}, 1200, lists=True)), [])

    def test_here(self) -> None:
        """Those of this machine are found."""
        with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as outer:
            assert outer.stdout is not None
            inner = int(outer.stdout.readline())
            self.addCleanup(outer.wait)
            found = descendants(os.getpid())
            os.kill(inner, 9)
        self.assertLessEqual({outer.pid, inner}, set(found))
