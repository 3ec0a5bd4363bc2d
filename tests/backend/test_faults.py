# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.faults`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backend.model_log import model_log
from twisted_serve.backend import faults
from twisted_serve.backend.faults import MAX_TEXT, complain, out_of_resources, reason, text_of


class UnspeakableError(Exception):
    """An exception that fails when it is asked what it is."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class ComplainTests(SynchronousTestCase):
    """Tests for error messages in the model log."""

    def test_complain(self) -> None:
        """The text comes first, then the traceback, whatever becomes of logging and of ``sys.stderr``."""
        log = model_log(self)
        self.patch(sys, "stderr", None)
        self.addCleanup(logging.disable, logging.NOTSET)
        logging.disable()
        complain("first \udc80")
        try:
            raise UnspeakableError
        except UnspeakableError as e:
            complain("second", e)
        first, second, *more = log.read_text().splitlines()
        self.assertEqual((first, second), (r"first \udc80", "second"))
        self.assertEqual(more[0], "Traceback (most recent call last):")
        self.assertIn("UnspeakableError", more[-1])

    def test_nobody_listens(self) -> None:
        """Where the descriptor has been closed nothing is said, and nothing fails."""
        read, write = os.pipe()
        os.close(read)
        os.close(write)
        self.patch(faults, "STDERR", write)
        complain("anybody?")


class ReasonTests(SynchronousTestCase):
    """Tests for the reason of a failed load, as the registering client gets it."""

    def _reason(self, source: str, filename: str, model_dir: str) -> str:
        try:
            exec(compile(source, filename, "exec"), {})
        except Exception as e:
            return reason(e, model_dir)
        raise AssertionError("nothing was raised")

    def test_place(self) -> None:
        """The reason names type, text, file and line of the model's own code."""
        self.assertEqual(
            self._reason("\n\n1 / 0", "/models/a/handler.py", "/models/a"),
            "ZeroDivisionError: division by zero (handler.py, line 3)",
        )

    def test_library(self) -> None:
        """If a library raises, the reason still points to the model's line that called it."""
        found = self._reason("import json\njson.loads('{')", "/models/a/sub/x.py", "/models/a")
        self.assertTrue(found.startswith("JSONDecodeError: "), found)
        self.assertTrue(found.endswith("(sub/x.py, line 2)"), found)

    def test_syntax(self) -> None:
        """A syntax error is where the parser stopped."""
        self.assertEqual(
            self._reason("def f(:", "/models/a/handler.py", "/models/a"),
            "SyntaxError: invalid syntax (handler.py, line 1)",
        )

    def test_outside(self) -> None:
        """Of a file outside of the model only the name is told."""
        found = self._reason("raise OSError('gone')", "/usr/secret/place/lib.py", "/models/a")
        self.assertEqual(found, "OSError: gone (lib.py, line 1)")

    def test_not_raised(self) -> None:
        """An exception without a traceback or a text is named by its type."""
        self.assertEqual(reason(ValueError(), str(Path.cwd())), "ValueError")

    def test_unspeakable(self) -> None:
        """An exception that has no text because asking for it fails is named by its type."""
        self.assertEqual(reason(UnspeakableError(), "/models/a"), "UnspeakableError")
        self.assertEqual(text_of(UnspeakableError()), "")

    @given(st.text(alphabet=st.characters()))
    def test_one_line(self, text: str) -> None:
        """Whatever the text, the reason is one line, not too long, that UTF-8 can carry."""
        found = reason(ValueError(text), "/models/a")
        self.assertEqual(len(found.splitlines()), 1)
        self.assertLessEqual(len(found.encode()), 4 * MAX_TEXT)


class OutOfResourcesTests(SynchronousTestCase):
    """Which errors mean that memory was exhausted."""

    def test_which(self) -> None:
        """The host's memory, or a device's; nothing else."""
        self.assertTrue(out_of_resources(MemoryError()))
        self.assertTrue(out_of_resources(RuntimeError("CUDA out of memory")))
        self.assertFalse(out_of_resources(RuntimeError("cuda")))
        self.assertFalse(out_of_resources(UnspeakableError()))
