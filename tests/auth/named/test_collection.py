# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.collection``.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys import NOW, digest, some_key, stores
from twisted_serve.auth.named.collection import KeyRecords, NameTakenError, NoSuchKeyError
from twisted_serve.auth.named.records import Former


class KeyRecordsTests(SynchronousTestCase):
    """Tests for the keys of a store."""

    @given(stores(), st.data())
    def test_changes(self, records: KeyRecords, data: st.DataObject) -> None:
        """A change returns other keys in the same order, and leaves these as they are."""
        before = list(records)
        added = records.adding(some_key("new.key"))
        self.assertEqual(list(added), [*before, some_key("new.key")])
        self.assertEqual(added.without("new.key"), records)
        if before:
            record = data.draw(st.sampled_from(before))
            other = evolve(record, disabled=not record.disabled)
            self.assertEqual(list(records.replacing(other)), [other if each is record else each for each in before])
            self.assertEqual(list(records.without(record.name)), [each for each in before if each is not record])
            self.assertIs(records.of(record.name), record)
        self.assertEqual(list(records), before)

    def test_no_such_key(self) -> None:
        """A key that is not there can neither be had, replaced nor removed; the text is on one line."""
        records = KeyRecords([some_key("a")])
        for name in ("b", "A", "", "a\nb"):
            self.assertNotIn(name, records)
            with self.assertRaises(NoSuchKeyError) as raised:
                records.of(name)
            self.assertEqual(str(raised.exception), f"No key has the name {name!r}.")
            self.assertRaises(NoSuchKeyError, records.without, name)
        self.assertRaises(NoSuchKeyError, records.replacing, some_key("b"))

    def test_taken(self) -> None:
        """A name is given once."""
        with self.assertRaisesRegex(NameTakenError, "A key has the name 'a' already"):
            KeyRecords([some_key("a")]).adding(evolve(some_key("a"), sha256=digest("other")))

    def test_equal(self) -> None:
        """No two keys have the same name, id or secret, former secrets included."""
        one = some_key("a")
        same_id = one.sha256[:8] + "0" * 56
        for other, text in (
            (evolve(some_key("b"), name="a"), "name is the same of the keys 'a' and 'a'"),
            (evolve(one, name="b"), "sha256 is the same of the keys 'a' and 'b'"),
            (evolve(one, name="b", sha256=same_id), "id is the same of the keys 'a' and 'b'"),
            (evolve(some_key("b"), former=Former(one.sha256, NOW)), "sha256 is the same of the keys 'a' and 'b'"),
        ):
            for keys in ([one, other], [other, one]):
                with self.assertRaises(ValueError) as raised:
                    KeyRecords(keys)
                self.assertEqual(sorted(str(raised.exception).split()), sorted(text.split()))
        with self.assertRaisesRegex(ValueError, "sha256 is the same of the keys 'a' and 'a'"):
            KeyRecords([evolve(one, former=Former(one.sha256, NOW))])
        rotated = [evolve(some_key(name), former=Former(digest("old"), NOW)) for name in "ab"]
        with self.assertRaisesRegex(ValueError, "sha256 is the same of the keys 'a' and 'b'"):
            KeyRecords(rotated)
