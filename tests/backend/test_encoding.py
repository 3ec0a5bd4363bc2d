# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.encoding`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.modules import ABSENT, replace_modules
from twisted_serve.backend.encoding import FlawedInputError, UnsupportedOutputError, body, row, value
from twisted_serve.testing.strategies.wire import json_objects, parts
from twisted_serve.wire.messages import Part

#: Pieces of JSON, and of what is nearly JSON.
PIECES = [
    "0",
    "-0",
    "1.5",
    "1e5",
    "1E400",
    "-1e-400",
    "9" * 30,
    "19851127483331324900",
    "NaN",
    "Infinity",
    "-Infinity",
    "true",
    "null",
    "nul",
]
PIECES += [
    '"a"',
    '"\\ud800"',
    '"\\ud83d\\ude00"',
    '"\x00"',
    '"\n"',
    '"ä"',
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    " ",
    "\n",
    "\ufeff",
]


def outcome(parse: Callable[[], Any]) -> str:
    """Return what parsing has as its result, or that it has none."""
    try:
        return repr(parse())
    except (ValueError, RecursionError, FlawedInputError):
        return "an error"


class ValueTests(SynchronousTestCase):
    """Tests for the decoding of request parts."""

    @given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | json_objects().map(json.dumps))
    def test_as_json(self, text: str) -> None:
        """Any text is what `json.loads` makes of it, or an error."""
        raw = text.encode()
        ours = outcome(lambda: value(Part("body", "application/json", raw or b" "), True))
        self.assertEqual(ours, outcome(lambda: json.loads(raw.decode() or " ")))

    def test_json(self) -> None:
        """JSON arrives parsed."""
        self.assertEqual(value(Part("body", "application/json", b'{"a": [1, "\xc3\xa9"]}'), True), {"a": [1, "é"]})

    def test_text(self) -> None:
        """Text of any kind arrives as ``str``."""
        self.assertEqual(value(Part("body", "text/csv", "é".encode()), True), "é")

    def test_bytes(self) -> None:
        """Anything else arrives as a ``bytearray``, not as ``bytes``."""
        for content_type in ("", "image/png", "application/json5", "Application/JSON"):
            found = value(Part("body", content_type, b"1"), True)
            self.assertIs(type(found), bytearray)
            self.assertEqual(found, b"1")

    def test_broken_json(self) -> None:
        """Broken JSON is refused, with what is wrong and where, and nothing of what stands there."""
        for raw, flaw in (
            (b"{", "Expecting property name enclosed in double quotes (line 1, column 2)"),
            (b'{"a": 1,\n "secret" 2}', "Expecting ':' delimiter (line 2, column 11)"),
            (b"secret", "Expecting value (line 1, column 1)"),
            (b'"a\xff"', "it is not UTF-8 (byte 2)"),
            (b"[" * 100_000, "it is nested too deeply"),
            (b"1" * 5000, "a number has too many digits"),
        ):
            error = self.assertRaises(FlawedInputError, value, Part("body", "application/json", raw), True)
            self.assertEqual(f"The body is no JSON: {flaw}.", str(error))
        error = self.assertRaises(FlawedInputError, value, Part("data\n", "application/json", b"{]"), True)
        self.assertIn("The part 'data\\n' is no JSON: ", str(error))

    def test_nothing(self) -> None:
        """Where there is no body, what it would be does not matter."""
        self.assertEqual(bytearray(), value(Part("body", "application/json", b""), True))

    def test_broken_text(self) -> None:
        """Text that is no UTF-8 arrives as bytes; that is no error."""
        self.assertEqual(value(Part("body", "text/plain", b"\xff"), True), bytearray(b"\xff"))

    def test_not_decoded(self) -> None:
        """With decoding off, for the model or for this part, bytes stay bytes."""
        self.assertEqual(value(Part("body", "application/json", b"1"), False), bytearray(b"1"))
        self.assertEqual(value(Part("a", "application/json", b"1", decode=False), True), bytearray(b"1"))

    def test_same_name(self) -> None:
        """Of several inputs with the same name the last one arrives."""
        self.assertEqual(
            row([Part("a", "", b"1"), Part("b", "", b"2"), Part("a", "", b"3")], True), {"a": b"3", "b": b"2"}
        )

    @given(st.lists(parts()), st.booleans())
    def test_any_parts(self, given_parts: list[Part], decoding: bool) -> None:
        """Whatever clients send, the handler gets a value for each name, or the client hears what is wrong."""
        try:
            found = row(given_parts, decoding)
        except FlawedInputError:
            self.assertTrue(decoding)
            return
        self.assertEqual(set(found), {part.name for part in given_parts})


class Hostile:
    """Breaks when it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Backwards(list[Any]):
    """A list that `json` renders in another order with an indent than without."""

    def __iter__(self) -> Iterator[Any]:
        return reversed(self)


class Colour(str, Enum):
    """Text by another class."""

    RED = "red"


class Pair(NamedTuple):
    """A tuple by another class."""

    left: float
    right: object


#: What handlers return at the leaves, and what they should not.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**30, max_value=10**40),
    st.floats(),
    st.text(),
    st.sampled_from([-0.0, 1e16, 1e-7, 5e-324, 1e22, Colour.RED, "\ud800", "\x7f\u2028", '"\\/', object(), {1}, b"x"]),
    st.builds(Pair, st.floats(), st.integers()),
)
KEYS = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.sampled_from([Colour.RED, (1,)]))


def lists_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return lists of all kinds."""
    lists = st.lists(inner, max_size=5)
    return lists | lists.map(tuple) | lists.map(Backwards)


class BodyTests(SynchronousTestCase):
    """Tests for the encoding of results."""

    def test_bytes(self) -> None:
        """Bytes of either kind are sent as they are, as ``bytes``."""
        for result in (b"\x00\xff", bytearray(b"\x00\xff")):
            self.assertIs(type(body(result)), bytes)
            self.assertEqual(body(result), b"\x00\xff")

    def test_text(self) -> None:
        """Text is sent as UTF-8, without quotes."""
        self.assertEqual(body("é"), b"\xc3\xa9")

    @given(json_objects())
    def test_json(self, result: dict[str, Any]) -> None:
        """Any value that JSON can represent is sent as JSON with an indent of two, as by TorchServe."""
        self.assertEqual(json.loads(body(result)), result)
        self.assertEqual(body(result).decode(), json.dumps(result, indent=2))

    @given(st.recursive(ODD, lambda inner: st.one_of(lists_of(inner), st.dictionaries(KEYS, inner, max_size=4))))
    def test_any_result(self, result: Any) -> None:
        """Any value, with odd numbers, keys, texts or classes, is rendered as by `json.dumps`, or refused as there."""
        if isinstance(result, (str, bytes)):
            return
        try:
            expected = json.dumps(result, indent=2).encode()
        except Exception:
            self.assertRaises(UnsupportedOutputError, body, result)
            return
        self.assertEqual(body(result), expected)

    def test_deep(self) -> None:
        """A result is rendered as by `json.dumps`, however deeply it is nested, or refused where that refuses it."""
        for depth in (10, 100, 300, 600, 5000):
            for wrap in (lambda inner: [inner], lambda inner: {"a": inner, "b": []}):
                result: Any = 1
                for _ in range(depth):
                    result = wrap(result)
                try:
                    expected = json.dumps(result, indent=2).encode()
                except RecursionError:
                    self.assertRaises(UnsupportedOutputError, body, result)
                else:
                    self.assertEqual(body(result), expected)

    def test_numbers(self) -> None:
        """Numbers, ``None`` and NaN are JSON too."""
        self.assertEqual(
            [body(each) for each in (1, 2.5, None, True, float("nan"))], [b"1", b"2.5", b"null", b"true", b"NaN"]
        )

    def test_tensor(self) -> None:
        """A tensor is sent in torch's own format, which torch can load."""
        try:
            import torch
        except ImportError:
            self.skipTest("torch is not installed")
        tensor = torch.arange(3)
        self.assertEqual(torch.load(io.BytesIO(body(tensor)), weights_only=True).tolist(), [0, 1, 2])

    def test_without_torch(self) -> None:
        """Encoding works, and imports nothing, where no handler has imported torch."""
        replace_modules(self, {"torch": ABSENT})
        self.assertEqual(body([1]), b"[\n  1\n]")
        self.assertNotIn("torch", sys.modules)

    def test_unsupported(self) -> None:
        """A value that cannot be encoded as bytes is refused, whatever it raises."""
        circle: list[Any] = []
        circle.append(circle)
        for result in (object(), {1, 2}, circle, {(): 1}, "\ud800", Hostile(), {"a": Hostile()}):
            self.assertRaises(UnsupportedOutputError, body, result)

    def test_memory(self) -> None:
        """Running out of memory is not the result's fault."""

        class Big(dict[str, int]):
            def items(self) -> Any:
                raise MemoryError

        self.assertRaises(MemoryError, body, Big(a=1))
