# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workers.process.output`."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, integers, lists, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.workers.process.output import LONGEST_LINE, LineSplitter


class LineSplitterTests(SynchronousTestCase):
    """Splitting a worker's output into lines."""

    @given(lists(text().map(lambda one: one.replace("\n", "").rstrip("\r"))), integers(1, 7))
    def test_however_it_is_divided(self, lines: list[str], size: int) -> None:
        """Lines are yielded as they were printed, however the pipe divides them."""
        splitter = LineSplitter()
        data = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
        expected = [line.encode("utf-8", "replace").decode() for line in lines]
        got = [line for at in range(0, len(data), size) for line in splitter.receive(data[at : at + size])]
        self.assertEqual(expected, got)
        self.assertEqual([], list(splitter.end()))

    def test_last_line(self) -> None:
        """A last line without a newline is yielded, too."""
        splitter = LineSplitter()
        self.assertEqual(["one"], list(splitter.receive(b"one\r\ntw")))
        self.assertEqual([], list(splitter.receive(b"o")))
        self.assertEqual(["two"], list(splitter.end()))

    def test_endless_line(self) -> None:
        """An endless line takes no more memory than a long one, and is marked as cut."""
        splitter = LineSplitter()
        for _ in range(100):
            self.assertEqual([], list(splitter.receive(b"x" * LONGEST_LINE)))
        self.assertEqual(LONGEST_LINE, len(splitter._partial))
        self.assertEqual(["x" * LONGEST_LINE + " [cut]", "next"], list(splitter.receive(b"\nnext\n")))

    @given(lists(binary()), integers(1, 20))
    def test_any_bytes(self, pieces: list[bytes], longest: int) -> None:
        """Any bytes that a handler prints become lines, none much longer than the limit."""
        splitter = LineSplitter(longest)
        lines = [line for piece in pieces for line in splitter.receive(piece)] + list(splitter.end())
        for line in lines:
            self.assertLessEqual(len(line), longest + len(" [cut]"))
        whole = b"".join(pieces)
        self.assertEqual(whole.count(b"\n") + bool(whole and not whole.endswith(b"\n")), len(lines))
