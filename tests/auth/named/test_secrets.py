# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.secrets``.
"""

from __future__ import annotations

import re
import string
from binascii import crc32
from collections import Counter
from fractions import Fraction
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.named import secrets
from twisted_serve.auth.named.secrets import LENGTH, PATTERN, PREFIX, fresh_secret, is_well_formed

CHARACTERS = string.digits + string.ascii_letters

#: The index of the checksum's first character.
CHECKSUM = LENGTH - 6


def made() -> st.SearchStrategy[str]:
    """Return secrets as they are made."""
    return st.binary(min_size=48, max_size=48).map(lambda drawn: fresh_secret(lambda n: drawn))


class FreshSecretTests(SynchronousTestCase):
    """Tests for new secrets."""

    @given(made())
    def test_form(self, secret: str) -> None:
        """A secret has its prefix, 32 characters and the CRC-32 of both, is well-formed, and is found by scanners."""
        self.assertRegex(secret, r"\Atsk_[0-9A-Za-z]{38}\Z")
        self.assertTrue(is_well_formed(secret))
        value = 0
        for digit in secret[CHECKSUM:]:
            value = value * 62 + (string.digits + string.ascii_uppercase + string.ascii_lowercase).index(digit)
        self.assertEqual(value, crc32(secret[:CHECKSUM].encode()))
        self.assertEqual(re.findall(PATTERN, f"Authorization: Bearer {secret}\nkey='{secret}'"), [secret, secret])

    def test_example(self) -> None:
        """A secret of old stays well-formed: the format is fixed."""
        self.assertEqual(fresh_secret(bytes), "tsk_" + "0" * 32 + "0xThzU")
        self.assertTrue(is_well_formed("tsk_" + "0" * 32 + "0xThzU"))

    def test_unbiased(self) -> None:
        """No secret is likelier than another by more than one in 2 ** 190, and all characters occur at each place."""
        values, drawn = 62**32, 2 ** (8 * secrets._RANDOM_BYTES)
        self.assertLess(Fraction(-(-drawn // values), drawn // values) - 1, Fraction(1, 2**190))
        random = Random(5)
        found = [fresh_secret(random.randbytes) for _ in range(3000)]
        for place in range(len(PREFIX), CHECKSUM):
            counted = Counter(secret[place] for secret in found)
            self.assertEqual(set(counted), set(CHARACTERS), place)
            self.assertLess(max(counted.values()), 3 * len(found) // 62, place)
        self.assertEqual(len(set(found)), len(found))

    def test_little_entropy(self) -> None:
        """A source that returns too few bytes makes no weak secret."""
        with self.assertRaisesRegex(ValueError, "has returned 3 of 48"):
            fresh_secret(lambda n: b"abc")


class WellFormedTests(SynchronousTestCase):
    """Tests for mistyped secrets."""

    @given(made(), st.integers(0, LENGTH - 1), st.characters())
    def test_changed(self, secret: str, place: int, other: str) -> None:
        """Each change of one character is recognised."""
        assume(secret[place] != other)
        self.assertFalse(is_well_formed(secret[:place] + other + secret[place + 1 :]))

    def test_every_change(self) -> None:
        """Each change of one character of a secret is recognised, at each place."""
        secret = fresh_secret(Random(6).randbytes)
        for place in range(LENGTH):
            for other in set(string.printable) - {secret[place]}:
                self.assertFalse(is_well_formed(secret[:place] + other + secret[place + 1 :]))

    @given(made(), st.integers(0, LENGTH - 2))
    def test_exchanged(self, secret: str, place: int) -> None:
        """
        Each exchange of two different neighbours is recognised.

        CRC-32 recognises each change within 32 bits; the border of the checksum is left out, where it need not.
        """
        assume(secret[place] != secret[place + 1] and place + 1 != CHECKSUM)
        swapped = secret[:place] + secret[place + 1] + secret[place] + secret[place + 2 :]
        self.assertFalse(is_well_formed(swapped))

    @given(made(), st.integers(0, LENGTH - 1), st.integers(0, LENGTH - 1), st.text(CHARACTERS, min_size=1, max_size=4))
    def test_cut_or_longer(self, secret: str, begin: int, end: int, more: str) -> None:
        """A part of a secret, or one with something around it, is not well-formed."""
        self.assertFalse(is_well_formed(secret[begin:end]))
        for text in (secret + more, more + secret, secret + "\n", " " + secret, secret[:begin] + more + secret[begin:]):
            self.assertFalse(is_well_formed(text))

    @given(made(), st.integers(len(PREFIX), CHECKSUM - 4), st.text(CHARACTERS, min_size=4, max_size=4))
    def test_four_changed(self, secret: str, place: int, others: str) -> None:
        """Each change of up to four neighbours before the checksum is recognised."""
        assume(secret[place : place + 4] != others)
        self.assertFalse(is_well_formed(secret[:place] + others + secret[place + 4 :]))

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Any text is answered, whatever its characters."""
        self.assertEqual(is_well_formed(PREFIX + text), False)
        self.assertEqual(is_well_formed(text), False)

    def test_digits_of_other_scripts(self) -> None:
        """Letters and digits beyond ASCII are no part of a secret, and a huge text costs nothing."""
        self.assertFalse(is_well_formed(PREFIX + "\u0660" * 38))
        self.assertFalse(is_well_formed(PREFIX + "é" * 38))
        self.assertFalse(is_well_formed(PREFIX + "\ud800" * 38))
        self.assertFalse(is_well_formed(PREFIX + "0" * 10_000_000))
