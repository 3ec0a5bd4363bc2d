# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.properties`.
"""

from __future__ import annotations

from hypothesis import example, given
from hypothesis.strategies import binary, dictionaries, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.properties import expand, parse_properties, render_properties
from twisted_serve.config.values import ConfigError


class ParseTests(SynchronousTestCase):
    """Reading properties files."""

    def assert_reads(self, data: bytes, expected: dict[str, str]) -> None:
        """Assert what a file says."""
        self.assertEqual(parse_properties(data), expected)

    def test_separators(self) -> None:
        """A key ends at "=", ":" or a blank, and blanks around it do not count."""
        self.assert_reads(b"a=1\nb : 2\nc 3\r\n d\t=\t4\re", {"a": "1", "b": "2", "c": "3", "d": "4", "e": ""})

    def test_comments(self) -> None:
        """Lines which begin with "#" or "!" say nothing, and are not continued."""
        self.assert_reads(b"# a=1 \\\nb=2\n  !c=3\n\n", {"b": "2"})

    def test_continuation(self) -> None:
        """A line which ends in an odd number of backslashes goes on; the next one's indentation does not count."""
        self.assert_reads(
            b'models={\\\n  "m": {\\\r\n\t"1.0": {}}}\na=b\\\\\nc=d',
            {"models": '{"m": {"1.0": {}}}', "a": "b\\", "c": "d"},
        )

    def test_escapes(self) -> None:
        """A backslash gives what follows it, or the character that is meant."""
        self.assert_reads(rb"a\=b=\u00e4\t\#\q", {"a=b": "ä\t#q"})

    def test_broken_escape(self) -> None:
        """An escape without its four digits is refused."""
        self.assertRaises(ConfigError, parse_properties, b"a=\\u12")

    def test_trailing_blanks(self) -> None:
        """Blanks at the end of a value do not count, unless they are escaped."""
        self.assert_reads(
            b"a=true \t\nb=100\x0c\r\nc=x\\  \nd=y\\\\ \n", {"a": "true", "b": "100", "c": "x ", "d": "y\\"}
        )

    def test_encodings(self) -> None:
        """A file is UTF-8, with or without a byte order mark; else it is Latin-1."""
        self.assert_reads("\ufeffa=ä€".encode(), {"a": "ä€"})
        self.assert_reads("a=ä".encode("latin-1"), {"a": "ä"})

    def test_twice(self) -> None:
        """Of a key which is there twice, the last counts."""
        self.assert_reads(b"a=1\na=2", {"a": "2"})

    @given(binary())
    def test_any_bytes(self, data: bytes) -> None:
        """No file does anything but be read or be refused."""
        try:
            parse_properties(data)
        except ConfigError as e:
            self.assertIn("u", str(e))

    @given(dictionaries(text(), text()))
    @example({"": ""})
    @example({"a": " "})
    @example({"a": "  "})
    @example({"a": "b \\ "})
    @example({" a ": "b\\"})
    @example({"a": "\ufeff\U0001f600\r\n\f\0"})
    def test_round_trip(self, values: dict[str, str]) -> None:
        """What is written is read back."""
        self.assertEqual(parse_properties(render_properties(values)), values)


class ExpandTests(SynchronousTestCase):
    """Environment variables in values."""

    def test_expands(self) -> None:
        """Each variable is put where its name stood."""
        environ = {"HOME": "/h", "STORE": "s"}
        self.assertEqual(expand({"a": "$$HOME$$/$$STORE$$!", "b": "x"}, environ), {"a": "/h/s!", "b": "x"})

    def test_no_expansion_of_contents(self) -> None:
        """What a variable contains is taken as it is, whatever it means elsewhere."""
        environ = {"KEY": r"$1\1\g<0>$$KEY$$"}
        self.assertEqual(expand({"a": "$$KEY$$"}, environ), {"a": environ["KEY"]})

    def test_no_variable(self) -> None:
        """What is no variable stays: a single character, or a dollar sign within."""
        self.assertEqual(expand({"a": "$$X$$ $$a$b$$ $$$$"}, {}), {"a": "$$X$$ $$a$b$$ $$$$"})

    def test_missing(self) -> None:
        """A variable which is not set is refused, in the predecessor's words, naming the setting."""
        error = self.assertRaises(ConfigError, expand, {"model_store": "$$NO_STORE$$"}, {})
        self.assertEqual(str(error), "Invalid Environment Variable NO_STORE (model_store)")
