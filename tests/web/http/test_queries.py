# SPDX-License-Identifier: Apache-2.0
"""Tests for query parameters."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from twisted_serve.errors import BadRequest
from twisted_serve.web.http.queries import MOST_PARAMETERS, as_boolean, as_integer, query_parameters

# What UTF-8 can carry.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def escaped(text: str) -> bytes:
    """Write every byte as a percent escape: what a client may do, and what needs no rules."""
    return b"".join(b"%%%02X" % byte for byte in text.encode())


def request(uri: bytes) -> Any:
    """Make a request for a target."""
    made = DummyRequest([b""])
    made.uri = uri
    return made


class IntegerTests(SynchronousTestCase):
    """Tests for `as_integer`."""

    @given(st.integers(-(2**31), 2**31 - 1), st.integers(), st.sampled_from(["", "+", "0", "00"]))
    def test_numbers(self, number: int, default: int, lead: str) -> None:
        """A 32-bit decimal number is read, with a sign and leading zeros if it has them."""
        text = str(number) if number < 0 else f"{lead}{number}"
        self.assertEqual(as_integer(text, default), number if len(text.lstrip("+-")) <= 10 else default)

    @given(st.none() | st.text(), st.integers())
    @example("1.5", 7)
    @example(" 1", 7)
    @example("1_0", 7)
    @example("0x10", 7)
    @example("1e3", 7)
    @example("\u0661", 7)
    @example("", 7)
    @example("+", 7)
    @example("2147483648", 7)
    @example("-2147483649", 7)
    @example("9" * 5000, 7)
    @example("1\n", 7)
    def test_anything_else(self, text: str | None, default: int) -> None:
        """Anything else is the default, and never an error."""
        found = as_integer(text, default)
        digits = (text or "").lstrip("+-")
        if not (digits.isascii() and digits.isdigit()):
            self.assertEqual(found, default)
        elif found != default:
            self.assertEqual(found, int(text or ""))
            self.assertIn(found, range(-(2**31), 2**31))


class BooleanTests(SynchronousTestCase):
    """Tests for `as_boolean`."""

    def test_words(self) -> None:
        """Only "true" is true, in any case; what is absent is the default."""
        for default in (True, False):
            for word in ("true", "TRUE", "tRuE"):
                self.assertIs(as_boolean(word, default), True)
            for word in ("false", "", "1", "yes", " true", "True!"):
                self.assertIs(as_boolean(word, default), False)
            self.assertIs(as_boolean(None, default), default)


class QueryTests(SynchronousTestCase):
    """Tests for `query_parameters`."""

    @given(st.lists(st.tuples(TEXTS, TEXTS), max_size=20), st.sampled_from([b"&", b";"]))
    def test_round_trip(self, pairs: list[tuple[str, str]], separator: bytes) -> None:
        """Names and values come back as they were before they were escaped; of a repeated name the first counts."""
        query = separator.join(escaped(name) + b"=" + escaped(value) for name, value in pairs)
        expected: dict[str, str] = {}
        for name, value in pairs:
            expected.setdefault(name, value)
        found = query_parameters(request(b"/models?" + query))
        self.assertEqual(found, expected)

    @given(st.binary(max_size=200))
    def test_never_an_error(self, query: bytes) -> None:
        """Whatever bytes a query has, it is read somehow."""
        for name, value in query_parameters(request(b"/token?" + query)).items():
            self.assertIsInstance(name, str)
            self.assertIsInstance(value, str)

    def test_without_value(self) -> None:
        """A name alone has an empty value; a plus is a blank; a fragment is no part of the query."""
        found = query_parameters(request(b"/models?a&b=&c=x+y&d=%2B#&e=1"))
        self.assertEqual(found, {"a": "", "b": "", "c": "x y", "d": "+"})
        self.assertEqual(query_parameters(request(b"/models")), {})

    def test_absolute_form(self) -> None:
        """The query of a target in absolute form is the same."""
        self.assertEqual(query_parameters(request(b"http://h/models?limit=3")), {"limit": "3"})

    def test_too_many(self) -> None:
        """A query is refused for more parameters than anybody needs, and read up to that many."""
        most = b"&".join(b"a%d=1" % number for number in range(MOST_PARAMETERS))
        self.assertEqual(len(query_parameters(request(b"/models?" + most))), MOST_PARAMETERS)
        for more in (b"&b=1", b";b=1", b"&" * 100_000):
            error = self.assertRaises(BadRequest, query_parameters, request(b"/models?" + most + more))
            self.assertIn(str(MOST_PARAMETERS), error.message)
