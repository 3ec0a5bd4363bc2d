# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.removal`."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.archives.deep_trees import deepen
from twisted_serve.archives.removal import remove_tree


class RemovalTests(SynchronousTestCase):
    """Tests for `remove_tree`."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.tree = self.root / "tree"
        self.tree.mkdir()

    def test_deep(self) -> None:
        """Neither Python's stack, nor the longest path, nor the number of descriptors is a limit."""
        deepen(self.tree, 3000)
        deepen(self.tree, 100, "n" * 255)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        few = max(map(int, os.listdir("/proc/self/fd"))) + 50
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], few), before[1]))
        remove_tree(self.tree)
        self.assertEqual(os.listdir(self.root), [])

    def test_links(self) -> None:
        """Links go, and what they lead to stays; a link is no tree."""
        (self.root / "kept").mkdir()
        (self.root / "kept" / "file").touch()
        (self.tree / "out").symlink_to(self.root / "kept")
        (self.tree / "sub").mkdir()
        (self.tree / "sub" / "out").symlink_to(self.root / "kept")
        (self.root / "alias").symlink_to(self.root / "kept")
        remove_tree(self.tree)
        remove_tree(self.root / "alias")
        self.assertEqual(sorted(os.listdir(self.root)), ["alias", "kept"])
        self.assertEqual(os.listdir(self.root / "kept"), ["file"])

    def test_permissions(self) -> None:
        """A handler that has taken all permissions from its directories does not keep them there."""
        for mode in (0o000, 0o500, 0o300):
            closed = self.tree / "a" / f"{mode:o}"
            (closed / "below").mkdir(parents=True)
            (closed / "below" / "file").touch()
            (closed / "below").chmod(mode)
            closed.chmod(mode)
        self.tree.chmod(0o500)
        remove_tree(self.tree)
        self.assertEqual(os.listdir(self.root), [])

    def test_special(self) -> None:
        """A FIFO is removed, not opened."""
        os.mkfifo(self.tree / "fifo")
        remove_tree(self.tree)
        self.assertEqual(os.listdir(self.root), [])

    def test_absent(self) -> None:
        """A missing path is no error, and a file is left in place."""
        (self.root / "file").touch()
        remove_tree(self.root / "absent")
        remove_tree(self.root / "file")
        self.assertTrue(stat.S_ISREG((self.root / "file").stat().st_mode))

    @given(st.lists(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6), max_size=12))
    def test_any_tree(self, paths: list[list[str]]) -> None:
        """Whatever the shape of a tree is, nothing of it is left, and no descriptor open."""
        tree = self.root / "any"
        tree.mkdir()
        for path in paths:
            tree.joinpath(*path).mkdir(parents=True, exist_ok=True)
            (tree.joinpath(*path) / "file").touch()
        descriptors = len(os.listdir("/proc/self/fd"))
        remove_tree(tree)
        self.assertFalse(tree.exists())
        self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)
