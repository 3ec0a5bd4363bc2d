# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.openinference.pieces``.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import BadRequest
from twisted_serve.openinference.pieces import MAX_CONTAINERS, MAX_OBJECTS, read_json
from twisted_serve.openinference.requests import read_request

# What makes a text a large one.
BLANK = b" " * (1 << 17)

# Bytes of the JSON of a large request.
MOST = 6_500_000

# More values than any call reads: so many take some milliseconds.
MOST_VALUES = 2048 * 33

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
# Texts that are nearly JSON.
PIECES = st.lists(
    st.sampled_from(
        [
            *'[]{},:" \n\t-+.0e1',
            *("true", "null", "NaN", '"a"', '"a,"', '"\\"', '"a":', "1,", "\x00"),
            *("[1,2],", "[1],", "[ 1 , 2 ] ,", "[1,],", '["]"],'),
        ]
    )
)


def outcome(read: Any, text: bytes) -> str:
    """Return the parsed value of a text, or that it cannot be parsed; NaN equals NaN."""
    try:
        return repr(read(text))
    except ValueError:
        return "refused"


class ReadTests(SynchronousTestCase):
    """Tests for `read_json`."""

    @given(DOCUMENTS, st.sampled_from([None, 1]), st.booleans())
    def test_documents(self, document: Any, indent: int | None, is_ascii: bool) -> None:
        """A large text is read as a small one."""
        text = json.dumps(document, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
        self.assertEqual(outcome(read_json, text + BLANK), outcome(json.loads, text))
        self.assertEqual(outcome(read_json, BLANK + text), outcome(json.loads, text))

    @given(PIECES)
    @example(["[", "1,", "]"])
    @example(["[", "1,", ",", "1", "]"])
    @example(["[", '"a,"', ",", '"a,"', "]"])
    def test_texts(self, pieces: list[str]) -> None:
        """A large text that is not JSON is refused like a small one."""
        for text in ("".join(pieces), f"[{''.join(pieces)}]"):
            self.assertEqual(outcome(read_json, text.encode() + BLANK), outcome(json.loads, text.encode()))

    @given(st.lists(st.integers() | st.text() | st.lists(st.floats(allow_nan=False)), max_size=20))
    @example([1])
    @example([[1.5, 2]])
    @example([[1], [], 2, [[3]]])
    @example([["a,", "]"], ["["]])
    def test_long(self, values: list[Any]) -> None:
        """Long lists are read whole."""
        values = values * (40_000 // (len(values) + 1))
        self.assertEqual(read_json(json.dumps(values).encode() + BLANK), values)

    def test_place(self) -> None:
        """The error has the position of the flaw, although the text before it was parsed in pieces."""
        text = b"[" + b"1," * 100_000 + b"1,,1]"
        with self.assertRaises(json.JSONDecodeError) as read:
            read_json(text)
        self.assertEqual((read.exception.msg, read.exception.pos), ("Expecting value", 200_003))

    def test_containers(self) -> None:
        """A large text has a limited number of lists and objects."""
        most = b"[" + b"[]," * (MAX_CONTAINERS - 2) + b"{}]"
        self.assertEqual(len(read_json(most)), MAX_CONTAINERS - 1)
        with self.assertRaisesRegex(ValueError, f"more than {MAX_CONTAINERS} lists and objects"):
            read_json(most[:-1] + b",[]]")
        with self.assertRaisesRegex(ValueError, f"more than {MAX_CONTAINERS} lists and objects"):
            read_json(b"[" + b"[1]," * MAX_CONTAINERS + b"1]")
        objects = b"[" + b"{}," * (MAX_OBJECTS - 1) + b"{}]"
        self.assertEqual(len(read_json(objects)), MAX_OBJECTS)
        with self.assertRaisesRegex(ValueError, f"more than {MAX_OBJECTS} objects"):
            read_json(objects[:-1] + b",{}]")

    def test_deep(self) -> None:
        """Depth is limited."""
        with self.assertRaises(RecursionError):
            read_json(b"[" * MOST)


class WaitTests(SynchronousTestCase):
    """Tests that other threads run while a large request is parsed."""

    def test_pieces(self) -> None:
        """No call reads many values, whatever the request is made of."""
        for piece in (b"1", b"1.5", b"[]", b'"abcde"', b'{"a":1}', b"[1,2]", b"[[1,2],[3]]", b"[" + b"1," * 99 + b"1]"):
            body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":['
            body += (piece + b",") * (MOST // 10 // (len(piece) + 1)) + piece + b"]}]}"
            with self.subTest(piece=piece):
                sizes = self.sizes(body)
                self.assertLessEqual(max(sizes), MOST_VALUES)
                # Neither is there a call for each value where there are lists of them.
                if not piece.startswith((b"{", b"[]", b"[[")):
                    self.assertGreater(sum(sizes) / len(sizes), 40)

    def sizes(self, body: bytes) -> list[int]:
        """Return the maximum number of values and containers parsed in one call."""
        sizes = []
        read = json.loads

        def counted(text: str) -> Any:
            sizes.append(text.count(",") + text.count("["))
            return read(text)

        self.patch(json, "loads", counted)
        with contextlib.suppress(BadRequest):
            read_request(body)
        return sizes or [0]

    def test_nothing_kept(self) -> None:
        """A refusal keeps nothing of what was read: it would be freed in the thread that it comes to."""
        with self.assertRaises(BadRequest) as read:
            read_request(b'{"inputs": {}}' + BLANK)
        self.assertIsNone(read.exception.__context__)
        traceback = read.exception.__traceback__
        while traceback is not None:
            self.assertNotIn("members", traceback.tb_frame.f_locals)
            traceback = traceback.tb_next
