# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.values`.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis.strategies import floats, integers, sampled_from, text
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.values import (
    ConfigError,
    a_path,
    at_least,
    between,
    one_of,
    optional_path,
    optional_pattern,
    optional_text,
    optional_whole,
    patterns,
    per_version,
    positive,
    real,
    truth,
    whole,
)


class ConfigErrorTests(SynchronousTestCase):
    """What is wrong, with which setting, and where it was said."""

    def test_must(self) -> None:
        """A requirement is read after the setting's name."""
        error = ConfigError("must be at least 1, not 0", "job_queue_size").at("/etc/c.properties")
        self.assertEqual(str(error), "job_queue_size must be at least 1, not 0 (/etc/c.properties)")

    def test_sentence(self) -> None:
        """Another problem stands first, as the predecessor words it."""
        error = ConfigError("Invalid binding address: x", "inference_address").at("/etc/c.properties")
        self.assertEqual(str(error), "Invalid binding address: x (inference_address in /etc/c.properties)")

    def test_bare(self) -> None:
        """A problem of no single setting stands alone."""
        self.assertEqual(str(ConfigError("no")), "no")


class ConverterTests(SynchronousTestCase):
    """What texts mean."""

    def test_truth(self) -> None:
        """Only "true", in any case, switches on."""
        for word in ("true", "TRUE", "True"):
            self.assertTrue(truth(word))
        for word in ("1", "yes", "on", "", " true", "true ", "false"):
            self.assertFalse(truth(word))
        self.assertTrue(truth(True))

    @given(integers(-(10**18), 10**18))
    def test_whole(self, number: int) -> None:
        """A whole number is read back from its digits."""
        self.assertEqual(whole(str(number)), number)
        self.assertEqual(whole(number), number)
        self.assertEqual(optional_whole(f"{number:+}"), number)

    def test_not_whole(self) -> None:
        """Whatever Java refuses, and what Python alone would take, is refused and named."""
        for word in ("", " 1", "1 ", "1_000", "1.0", "0x10", "٣", "9" * 5000, "-", "1e3"):
            error = self.assertRaises(ValueError, whole, word)
            self.assertIn(repr(word), str(error))
        self.assertRaises(ValueError, whole, True)

    def test_optional(self) -> None:
        """Nothing given is nothing; for text and paths, so is the empty text."""
        self.assertIsNone(optional_whole(None))
        self.assertIsNone(optional_text(""))
        self.assertIsNone(optional_path(""))
        self.assertIsNone(optional_path(None))
        self.assertIsNone(optional_pattern(""))
        self.assertEqual(optional_text("x"), "x")

    @given(floats(allow_nan=False, allow_infinity=False))
    def test_real(self, number: float) -> None:
        """A number is read back from its text."""
        self.assertEqual(real(repr(number)), number)
        self.assertEqual(real(number), number)

    @given(sampled_from(["nan", "inf", "-inf", "1e400", "1_0", " 1", "", "1,5", "60min", "0x1p3", "٣", "."]))
    def test_not_real(self, word: str) -> None:
        """What is no finite number is refused and named."""
        self.assertIn(repr(word), str(self.assertRaises(ValueError, real, word)))

    def test_real_values(self) -> None:
        """Infinity is as bad when it is no text."""
        self.assertRaises(ValueError, real, float("inf"))
        self.assertRaises(ValueError, real, True)

    def test_paths(self) -> None:
        """A path is any text but an empty one, or one with a zero byte."""
        self.assertEqual(a_path("a/b"), Path("a/b"))
        self.assertEqual(optional_path(Path("a")), Path("a"))
        self.assertRaises(ValueError, a_path, "")
        self.assertRaises(ValueError, optional_path, "a\0b")

    def test_patterns(self) -> None:
        """Regular expressions stand between commas; blanks around them and empty ones do not count."""
        self.assertEqual(patterns("https://a/.*, file://.*,,"), ("https://a/.*", "file://.*"))
        self.assertEqual(patterns(["a{1}"]), ("a{1}",))
        self.assertEqual(optional_pattern("AWS_.*"), "AWS_.*")
        for broken in ("(", "a{99999999999999999999}", "*"):
            self.assertIn(repr(broken), str(self.assertRaises(ValueError, patterns, broken)))

    @given(text())
    def test_patterns_total(self, word: str) -> None:
        """No text does anything but be read or be refused."""
        try:
            self.assertTrue(all(patterns(word)))
        except ValueError as e:
            self.assertIn("must be a regular expression", str(e))

    def test_per_version(self) -> None:
        """Settings of models are an object of objects of objects."""
        models = {"m": {"1.0": {"minWorkers": 1}}}
        self.assertEqual(per_version('{"m": {"1.0": {"minWorkers": 1}}}'), models)
        self.assertEqual(per_version(models), models)
        self.assertEqual(per_version(""), {})
        for broken in ("[]", "{", '{"m": 1}', '{"m": {"1.0": 1}}', "[" * 100000):
            self.assertRaises(ValueError, per_version, broken)


class ValidatorTests(SynchronousTestCase):
    """What numbers are allowed."""

    def test_at_least(self) -> None:
        """Numbers from a least one, or none at all."""
        at_least(1)(None, None, 1)
        at_least(1)(None, None, None)
        self.assertRaises(ValueError, at_least(1), None, None, 0)

    def test_between(self) -> None:
        """Numbers from one to another."""
        for number in (0, 5, 10):
            between(0, 10)(None, None, number)
        for number in (-1, 11):
            self.assertRaises(ValueError, between(0, 10), None, None, number)

    def test_positive(self) -> None:
        """Numbers which are more than nothing."""
        positive(0.1, 10)(None, None, 0.1)
        for number in (0.0, 0.01, -1.0, 11.0):
            error = self.assertRaises(ValueError, positive(0.1, 10), None, None, number)
            self.assertEqual(str(error), f"must be more than 0 and at most 10, not {number}")

    def test_one_of(self) -> None:
        """One of a few."""
        one_of((400, 401))(None, None, 401)
        error = self.assertRaises(ValueError, one_of((400, 401)), None, None, 402)
        self.assertEqual(str(error), "must be one of 400, 401, not 402")
