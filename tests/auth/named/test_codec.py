# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.codec``.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys import NOW, digest, some_key, stores
from twisted_serve.auth.named.codec import Content, parse, render
from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.records import Former

#: A member of a key to set to a value of JSON, or to leave out, and what is said of it.
LEAVE_OUT = object()
WRONG_MEMBERS: list[tuple[str, object, str]] = [
    ("name", "../../etc/passwd", "key '../../etc/passwd': name is '../../etc/passwd', expected"),
    ("name", "a\nAUDIT all is well", r"key 'a\nAUDIT all is well': name is 'a\nAUDIT all is well', expected"),
    ("name", "", "key '': name is '', expected"),
    ("name", "é", "name is 'é', expected"),
    ("name", "a" * 65, "expected 1 to 64 letters"),
    ("name", 5, "key number 1: Expected `str`, got `int` - at `$.name`"),
    ("name", LEAVE_OUT, "key number 1: Object missing required field `name`"),
    ("id", "00000000", "key 'a': id is '00000000', but sha256 begins with 'ca978112'"),
    ("id", None, "key 'a': Expected `str`, got `null` - at `$.id`"),
    ("sha256", "ca978112", "key 'a': sha256 is no SHA-256 digest"),
    ("sha256", digest("a").upper(), "key 'a': sha256 is no SHA-256 digest"),
    ("sha256", digest("a")[:-1] + "\n", "key 'a': sha256 is no SHA-256 digest"),
    ("sha256", LEAVE_OUT, "key 'a': Object missing required field `sha256`"),
    ("scopes", ["inference", "everything"], "key 'a': 'everything' is no scope"),
    ("scopes", [], "key 'a': a key needs a scope"),
    ("scopes", "inference", "key 'a': Expected `array`, got `str` - at `$.scopes`"),
    ("scopes", ["inference", 1], "key 'a': Expected `str`, got `int` - at `$.scopes[1]`"),
    ("created", "yesterday", "key 'a': Invalid RFC3339 encoded datetime - at `$.created`"),
    ("created", "2026-01-01T00:00:00", "key 'a': Expected `datetime` with a timezone component - at `$.created`"),
    ("created", None, "key 'a': Expected `datetime`, got `null` - at `$.created`"),
    ("expires", "2026-02-30T00:00:00Z", "key 'a': Invalid RFC3339 encoded datetime - at `$.expires`"),
    ("expires", 5, "- at `$.expires`"),
    ("disabled", "no", "key 'a': Expected `bool`, got `str` - at `$.disabled`"),
    ("disabled", 0, "key 'a': Expected `bool`, got `int` - at `$.disabled`"),
    ("rate", 0, "key 'a': rate is 0, expected a whole number from 1"),
    ("rate", -1, "key 'a': rate is -1, expected a whole number from 1"),
    ("rate", 1.5, "key 'a': Expected `int | null`, got `float` - at `$.rate`"),
    ("concurrent", 10**30, "key 'a': concurrent is 1000"),
    ("concurrent", True, "key 'a': Expected `int | null`, got `bool` - at `$.concurrent`"),
    ("former", None, "key 'a': Expected `object`, got `null` - at `$.former`"),
    ("former", {"sha256": digest("b")}, "key 'a': Object missing required field `until` - at `$.former`"),
    ("former", {"sha256": "b", "until": "2026-01-01T00:00:00Z"}, "key 'a': sha256 is no SHA-256 digest"),
    ("admin", True, "key 'a': Object contains unknown field `admin`"),
    ("a\nb", True, r"key 'a': Object contains unknown field `a\nb`"),
]

DEEP = b"[" * 100_000 + b"]" * 100_000

#: Files, and what is said of them.
WRONG_FILES: list[tuple[bytes, str]] = [
    (b"", "it is no JSON object: Input data was truncated"),
    (b'{"format": 1, "keys": [', "it is no JSON object: Input data was truncated"),
    (b"[]", "it is no JSON object: Expected `object`, got `array`"),
    (b"\xff\xfe", "it is no JSON object: "),
    (b'{"\xff": 1}', "it is no JSON object: "),
    (b'{"management": {"key": "abcdefgh"}}', "format is missing, so it is no file of named keys"),
    (b'{"format": 2, "keys": {}, "more": 1}', "format is 2, which another version has written; this one reads 1"),
    (b'{"format": 0, "keys": []}', "format is 0, which another version has written; this one reads 1"),
    (b'{"format": "1", "keys": []}', "format: Expected `int`, got `str`"),
    (b'{"format": 1}', "keys is missing"),
    (b'{"format": 1, "keys": {}}', "keys: Expected `array`, got `object`"),
    (b'{"format": 1, "keys": null}', "keys: Expected `array`, got `null`"),
    (b'{"format": 1, "keys": [], "a\\nb": 1}', r"there is an unknown member, 'a\nb'"),
    (b'{"format": 1, "keys": [5]}', "key number 1: Expected `object`, got `int`"),
    (b'{"format": 1, "keys": []} {}', "it is no JSON object: JSON is malformed"),
    (b'{"format": 1, "keys": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "maximum recursion depth exceeded"),
    (
        b'{"format": 1, "keys": [{"name": "a", "scopes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        "maximum recursion",
    ),
]


def rendered(records: KeyRecords) -> bytes:
    """Return the file with these keys."""
    return render(records, Content())[0]


class CodecTests(SynchronousTestCase):
    """Tests for the format."""

    @given(stores())
    def test_round_trip(self, records: KeyRecords) -> None:
        """What is written is read again."""
        data, content = render(records, Content())
        self.assertEqual(parse(data, Content()), content)
        self.assertEqual(parse(data, Content()).records, records)
        self.assertEqual(list(json.loads(data)), ["format", "keys"])

    def test_example(self) -> None:
        """The format is fixed; there is a line for each key."""
        one = evolve(some_key("a", "inference:resnet*"), rate=60, expires=NOW, former=Former(digest("old"), NOW))
        date = "2026-01-02T03:04:05.000006Z"
        self.assertEqual(
            rendered(KeyRecords([one, some_key("b")])).decode().splitlines(),
            [
                '{"format": 1, "keys": [',
                f'{{"name":"a","id":"ca978112","sha256":"{digest("a")}","scopes":["inference:resnet*"],'
                f'"created":"{date}","expires":"{date}","disabled":false,"rate":60,"concurrent":null,'
                f'"former":{{"sha256":"{digest("old")}","until":"{date}"}}}},',
                f'{{"name":"b","id":"3e23e816","sha256":"{digest("b")}","scopes":["inference"],'
                f'"created":"{date}","expires":null,"disabled":false,"rate":null,"concurrent":null}}',
                "]}",
            ],
        )

    @given(stores(), st.data())
    def test_incremental(self, records: KeyRecords, data: st.DataObject) -> None:
        """What is known is reused, and makes no difference: keys that have not changed stay the same objects."""
        known = render(records, Content())[1]
        other = data.draw(stores())
        kept = [key for key in records if data.draw(st.booleans()) and not any(key.name == new.name for new in other)]
        try:
            changed = KeyRecords([*kept, *other])
        except ValueError:
            return
        rewritten, content = render(changed, known)
        self.assertEqual(rewritten, rendered(changed))
        again = parse(rewritten, known)
        self.assertEqual(again, content)
        for key in kept:
            self.assertIs(again.records.of(key.name), key)

    def test_by_hand(self) -> None:
        """A file that was formatted by hand, with members in another order and without optional ones, is read."""
        wanted = KeyRecords([some_key("a")])
        members = json.loads(rendered(wanted))["keys"][0]
        for optional in ("expires", "disabled", "rate", "concurrent"):
            del members[optional]
        by_hand = {"keys": [dict(reversed(members.items()))], "format": 1}
        self.assertEqual(parse(json.dumps(by_hand, indent=4).encode(), Content()).records, wanted)

    def test_wrong_files(self) -> None:
        """A file that is not ours, torn or of another format is refused with the reason."""
        for data, text in WRONG_FILES:
            with self.assertRaises(ValueError, msg=data[:80]) as raised:
                parse(data, Content())
            self.assertIn(text, str(raised.exception))

    def test_wrong_members(self) -> None:
        """A key with a wrong member is refused; its name and the member are named, on one line."""
        whole: dict[str, Any] = json.loads(rendered(KeyRecords([some_key("a")])))
        for member, value, text in WRONG_MEMBERS:
            key = {**whole["keys"][0], member: value}
            if value is LEAVE_OUT:
                del key[member]
            with self.assertRaises(ValueError, msg=text) as raised:
                parse(json.dumps({**whole, "keys": [key]}).encode(), Content())
            self.assertIn(text, str(raised.exception))
            self.assertTrue(str(raised.exception).isprintable())

    def test_clash(self) -> None:
        """Two keys with the same name, id or secret are refused by their names."""
        data = json.loads(rendered(KeyRecords([some_key("a"), some_key("b")])))
        one, other = data["keys"]
        clashes = [
            (dict(other, name="a"), "name is the same of the keys 'a' and 'a'"),
            (dict(one, name="b"), "sha256 is the same of the keys 'a' and 'b'"),
            (dict(one, name="b", sha256=one["sha256"][:8] + "0" * 56), "id is the same of the keys 'a' and 'b'"),
        ]
        for clash, text in clashes:
            with self.assertRaisesRegex(ValueError, text):
                parse(json.dumps({"format": 1, "keys": [one, clash]}).encode(), Content())

    @given(stores(2), st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 4))
    def test_damaged(self, records: KeyRecords, place: int, more: bytes, less: int) -> None:
        """A damaged file is read or refused, on one line of bounded length; a part of one is always refused."""
        data = rendered(records)
        place %= len(data)
        damaged = data[:place] + more + data[place + less :]
        try:
            parse(damaged, render(records, Content())[1])
        except ValueError as e:
            self.assertTrue(str(e).isprintable())
            self.assertLess(len(str(e)), 2000)
        if data[:place].strip() != data.strip():
            self.assertRaises(ValueError, parse, data[:place], Content())

    def test_long_texts(self) -> None:
        """What is quoted from a file is bounded."""
        long = "x" * 10_000_000
        for data in ({"format": 1, "keys": [], long: 1}, {"format": 1, "keys": [{long: 1}]}):
            with self.assertRaises(ValueError) as raised:
                parse(json.dumps(data).encode(), Content())
            self.assertLess(len(str(raised.exception)), 1000)
