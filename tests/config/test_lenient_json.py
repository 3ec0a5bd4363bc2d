# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.lenient_json`.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, floats, integers, lists, none, recursive, sampled_from, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.lenient_json import read_lenient_json

_LEAVES = none() | booleans() | integers() | floats(allow_nan=False, allow_infinity=False) | text()
JSON = recursive(_LEAVES, lambda inner: lists(inner) | dictionaries(text(), inner), max_leaves=10)

EXPECTED = {"greet": {"1.0": {"minWorkers": 1, "defaultVersion": True, "marName": "greet.mar"}}}


def written(value: Any, quote: str, colon: str, comma: str, blank: str) -> str:
    """Write a value in one of the ways that Gson reads."""
    if isinstance(value, dict):
        pairs = (
            f"{written(k, quote, colon, comma, blank)}{blank}{colon}{blank}{written(v, quote, colon, comma, blank)}"
            for k, v in value.items()
        )
        return "{" + blank + comma.join(pairs) + blank + "}"
    if isinstance(value, list):
        return "[" + comma.join(written(each, quote, colon, comma, blank) for each in value) + blank + "]"
    if isinstance(value, str) and quote == "'":
        return "'" + json.dumps(value)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    return json.dumps(value)


class LenientJsonTests(SynchronousTestCase):
    """What is read, and as what."""

    def test_forms(self) -> None:
        """One setting in all the forms in which files of TorchServe have it."""
        for form in (
            '{"greet": {"1.0": {"minWorkers": 1, "defaultVersion": true, "marName": "greet.mar"}}}',
            "{'greet': {'1.0': {'minWorkers': 1, 'defaultVersion': true, 'marName': 'greet.mar'}}}",
            "{greet: {1.0: {minWorkers: 1, defaultVersion: TRUE, marName: greet.mar}}}",
            "{greet:{1.0:{minWorkers:1,defaultVersion:true,marName:greet.mar}}}",
            "{greet={1.0 => {minWorkers = 1; defaultVersion = true; marName = 'greet.mar'}}}",
            "{greet: {1.0: {minWorkers: 1, /* why */ defaultVersion: true, // so\n marName: greet.mar, # yes\n },},}",
        ):
            self.assertEqual(read_lenient_json(form), EXPECTED, form)

    def test_values(self) -> None:
        """What stands without quotes is a number or a word of JSON if it is one, and text otherwise."""
        for form, value in (
            ("[1, -2, 0.5, 1e3]", [1, -2, 0.5, 1000.0]),
            ("[01, 1.0.0, +1, NaN, -]", ["01", "1.0.0", "+1", "NaN", "-"]),
            ("[null, Null, 'null']", [None, None, "null"]),
            (
                r"['it\'s', '\u00e9\n', 'a\"b', \"a'b\"]".replace(r"\"a", '"a').replace(r"b\"]", 'b"]'),
                ["it's", "é\n", 'a"b', "a'b"],
            ),
            ("{a: [], b: {}}", {"a": [], "b": {}}),
            (" 'x' # end", "x"),
        ):
            self.assertEqual(read_lenient_json(form), value, form)

    def test_refused(self) -> None:
        """What not even Gson reads is refused, with the place."""
        for form in (
            "",
            "{",
            "{a}",
            "{a: }",
            "{a: 1 b: 2}",
            "[1 2]",
            "{a: 'x}",
            "{a: 1} b",
            r"['\x']",
            "{: 1}",
            "]",
            "/* a",
        ):
            error = self.assertRaises(ValueError, read_lenient_json, form)
            self.assertIn("line 1 column", str(error), form)
        self.assertIn(
            "line 1 column 25", str(self.assertRaises(ValueError, read_lenient_json, '{"m": {"1.0": {"a": 1 } "b"'))
        )

    def test_deep(self) -> None:
        """Nothing is so deep that it is not an ordinary error."""
        for form in ("[" * 200_000, "{a:" * 200_000, '{"a":' * 200_000):
            self.assertRaises(ValueError, read_lenient_json, form)

    @given(JSON)
    def test_json(self, value: Any) -> None:
        """JSON is read as JSON."""
        self.assertEqual(read_lenient_json(json.dumps(value)), value)

    @given(
        JSON,
        sampled_from("'\""),
        sampled_from([":", "=", "=>"]),
        sampled_from(",;"),
        sampled_from(["", " ", "\n", "/**/", "#\n"]),
    )
    def test_any_form(self, value: Any, quote: str, colon: str, comma: str, blank: str) -> None:
        """Each way to write a value is read as this value."""
        self.assertEqual(read_lenient_json(written(value, quote, colon, comma, blank)), value)

    @given(text(alphabet="{}[]:=>,;'\"\\/#*ab1. \n", max_size=40))
    def test_any_text(self, form: str) -> None:
        """Any text is read or refused, and nothing else happens."""
        try:
            read_lenient_json(form)
        except ValueError as e:
            self.assertIn("line ", str(e))
