# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workers.process.output`."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, integers, lists, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.workers.process.output import LONGEST_LINE, LineSplitter


class LineCutterTests(SynchronousTestCase):
    """Splitting a worker's output into lines."""

    @given(lists(text().map(lambda one: one.replace("\n", "").rstrip("\r"))), integers(1, 7))
    def test_however_it_is_divided(self, lines: list[str], size: int) -> None:
        """Lines are yielded as they were printed, however the pipe divides them."""
        cutter = LineSplitter()
        data = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
        expected = [line.encode("utf-8", "replace").decode() for line in lines]
        got = [line for at in range(0, len(data), size) for line in cutter.receive(data[at : at + size])]
        self.assertEqual(expected, got)
        self.assertEqual([], list(cutter.end()))

    def test_last_line(self) -> None:
        """A last line without a newline is yielded, too."""
        cutter = LineSplitter()
        self.assertEqual(["one"], list(cutter.receive(b"one\r\ntw")))
        self.assertEqual([], list(cutter.receive(b"o")))
        self.assertEqual(["two"], list(cutter.end()))

    def test_endless_line(self) -> None:
        """An endless line takes no more memory than a long one, and is marked as cut."""
        cutter = LineSplitter()
        for _ in range(100):
            self.assertEqual([], list(cutter.receive(b"x" * LONGEST_LINE)))
        self.assertEqual(LONGEST_LINE, len(cutter._partial))
        self.assertEqual(["x" * LONGEST_LINE + " [cut]", "next"], list(cutter.receive(b"\nnext\n")))

    @given(lists(binary()), integers(1, 20))
    def test_any_bytes(self, pieces: list[bytes], longest: int) -> None:
        """Any bytes that a handler prints become lines, none much longer than the limit."""
        cutter = LineSplitter(longest)
        lines = [line for piece in pieces for line in cutter.receive(piece)] + list(cutter.end())
        for line in lines:
            self.assertLessEqual(len(line), longest + len(" [cut]"))
        whole = b"".join(pieces)
        self.assertEqual(whole.count(b"\n") + bool(whole and not whole.endswith(b"\n")), len(lines))
