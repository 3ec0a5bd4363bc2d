# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.documents`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.documents import (
    MAX_DEPTH,
    MAX_DOCUMENT_SIZE,
    MAX_VALUES,
    DocumentError,
    load_json,
    load_yaml,
)

# No control characters: YAML normalizes some of them, as it may.
TEXT = st.characters(exclude_categories=("Cs", "Cc"))


def loaded(load: Callable[[Path], Any], text: str | bytes) -> Any:
    """Load a document from a file with this content."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "document")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path)


def billion_laughs(levels: int) -> str:
    """Return ten lines that expand to ten to the power of ``levels`` values."""
    lines = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


class DocumentTests(SynchronousTestCase):
    """Tests for documents in both formats."""

    def assertRefused(self, load: Callable[[Path], Any], text: str | bytes, reason: str) -> None:
        self.assertIn(reason, str(self.assertRaises(DocumentError, loaded, load, text)))

    def test_values(self) -> None:
        """Documents become plain values; an empty YAML document is no value."""
        self.assertEqual(loaded(load_json, '\ufeff{"a": [1, 2.5, null, "ü"]}'), {"a": [1, 2.5, None, "ü"]})
        self.assertEqual(
            loaded(load_yaml, "a: [1, 2.5, ~, ü]\nb: &x {c: yes}\nd: *x"),
            {"a": [1, 2.5, None, "ü"], "b": {"c": True}, "d": {"c": True}},
        )
        self.assertEqual(loaded(load_yaml, "a: &x 1\nb: *x"), {"a": 1, "b": 1})
        self.assertIsNone(loaded(load_yaml, ""))
        self.assertIsNone(loaded(load_yaml, "# nothing but this\n"))

    def test_malformed(self) -> None:
        """What is no document is refused, and nothing but `DocumentError` is raised."""
        for text in ("{", "[1,]", "nul", "", '{"a": ' + "9" * 5000 + "}"):
            self.assertRaises(DocumentError, loaded, load_json, text)
        for text in (
            "{",
            "a: b: c",
            "a: *nothing",
            "\t- a",
            "d: 2001-13-41",
            "? [a]\n: b",
            "a: !!python/name:os.system",
            "--- a\n--- b",
            "a: \0",
            "? {a: b}\n: c",
            "%YAML 9.9\n---\n!!binary '='",
            "!!int 'x'",
            "!!timestamp 'x'",
            "{<<: 5}",
        ):
            with self.subTest(text):
                self.assertRaises(DocumentError, loaded, load_yaml, text)
        self.assertRefused(load_json, b"\xff", "not UTF-8 at byte 0")

    def test_no_objects_are_made(self) -> None:
        """A YAML document cannot call anything (CVE-2022-1471 in TorchServe)."""
        self.assertRefused(load_yaml, "a: !!python/object/apply:os.mkdir [evil]", "could not determine a constructor")
        self.assertFalse(os.path.exists("evil"))

    def test_billion_laughs(self) -> None:
        """Aliases count as the values they repeat: a few lines that expand to billions of values are refused."""
        self.assertRefused(load_yaml, billion_laughs(9), f"more than {MAX_VALUES} values")
        self.assertEqual(len(loaded(load_yaml, billion_laughs(3))["l2"]), 10)

    def test_merge_bomb(self) -> None:
        """Merge keys count, too."""
        lines = ["a0: &a0 {k: v}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9))]
        self.assertRefused(load_yaml, "\n".join(lines), f"more than {MAX_VALUES} values")

    def test_recursion(self) -> None:
        """A value that contains itself is refused."""
        self.assertRefused(load_yaml, "a: &a [*a]", "contains itself")

    def test_depth(self) -> None:
        """Nesting is bounded, however deep."""
        for depth in (MAX_DEPTH + 2, 100_000):
            self.assertRefused(load_json, "[" * depth + "]" * depth, f"more than {MAX_DEPTH} deep")
            self.assertRefused(load_yaml, "[" * depth + "]" * depth, f"more than {MAX_DEPTH} deep")
        aliases = ["a: &l0 [[[[[[[[[[]]]]]]]]]]", *(f"b{i}: &l{i} [[[[[[[[*l{i - 1}]]]]]]]]" for i in range(1, 5))]
        self.assertRefused(load_yaml, "\n".join(aliases), f"more than {MAX_DEPTH} deep")

    def test_size(self) -> None:
        """A large file is not read to its end, and many values are refused."""
        self.assertRefused(load_json, " " * MAX_DOCUMENT_SIZE + "1", f"larger than {MAX_DOCUMENT_SIZE} bytes")
        self.assertRefused(load_json, json.dumps([1] * 2 * MAX_VALUES), f"more than {MAX_VALUES} values")
        self.assertRefused(load_yaml, "- 1\n" * (MAX_VALUES + 1), f"more than {MAX_VALUES} values")

    def test_what_cannot_travel(self) -> None:
        """Integers and strings which the wire to a worker cannot carry are refused."""
        self.assertRefused(load_json, json.dumps({"a": 1 << 64}), "more than 64 bits")
        self.assertRefused(load_yaml, "a: -0x8000000000000001", "more than 64 bits")
        self.assertRefused(load_json, '{"a": ["\\ud800"]}', "surrogate")
        self.assertRefused(load_json, '{"\\udfff": 1}', "surrogate")

    def test_no_file(self) -> None:
        """A missing file raises the system's error; a FIFO does not block the reader."""
        with TemporaryDirectory() as directory:
            fifo = Path(directory, "fifo")
            self.assertRaises(FileNotFoundError, load_json, fifo)
            os.mkfifo(fifo)
            self.assertEqual(str(self.assertRaises(DocumentError, load_json, fifo)), "not a regular file")


class DocumentProperties(SynchronousTestCase):
    """Properties of all documents."""

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(1 << 63), (1 << 64) - 1)
            | st.floats(allow_nan=False)
            | st.text(TEXT),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(TEXT, min_size=1, max_size=8), inner, max_size=4)
            ),
            max_leaves=20,
        )
    )
    @settings(deadline=None)
    def test_round_trip(self, document: Any) -> None:
        """What is dumped is loaded."""
        self.assertEqual(loaded(load_json, json.dumps(document)), document)
        self.assertEqual(loaded(load_yaml, yaml.safe_dump(document, allow_unicode=True)), document)

    @given(st.binary(max_size=200) | st.text("[]{}&*ab:,-!<>|? \n'\"%=0.~", max_size=60).map(str.encode))
    @settings(deadline=None)
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are a document or are refused."""
        for load in (load_json, load_yaml):
            with contextlib.suppress(DocumentError):
                loaded(load, data)
