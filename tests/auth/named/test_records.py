# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.records``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.named.records import MOST, NamedKey
from twisted_serve.auth.named.scopes import KeyScopes
from twisted_serve.auth.tokens import public_id

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
RIGHT: dict[str, Any] = {"name": "a", "sha256": 64 * "0", "scopes": KeyScopes(("inference",)), "created": NOW}


# Dates that are none in UTC, in which they are shown.
LAST = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-1)))
FIRST = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))


class NamedKeyTests(SynchronousTestCase):
    """Tests for the record of a key."""

    def test_right(self) -> None:
        """Names, limits and dates at their bounds."""
        for changed in (
            {"name": "A-b_c.9"},
            {"name": 64 * "a"},
            {"rate": 1, "concurrent": MOST},
            {"expires": NOW},
            {"disabled": True},
        ):
            NamedKey(**{**RIGHT, **changed})

    def test_wrong(self) -> None:
        """Each wrong value is refused, with the name of its field."""
        for name, values in {
            "name": ("", 65 * "a", "-a", ".a", "a b", "a/b", "a\n", "\u00e9", "../a", None, 1),
            "sha256": ("", 63 * "0", 65 * "0", 64 * "G", 64 * "A", None),
            "created": (datetime(2026, 1, 1), None, "2026-01-01"),  # noqa: DTZ001
            "expires": (datetime(2026, 1, 1), 0, LAST, FIRST),  # noqa: DTZ001
            "disabled": ("no", 0, None),
            "rate": (0, -1, MOST + 1, 1.5, True, "1"),
            "concurrent": (0, -1, MOST + 1, 1.5, False, "1"),
        }.items():
            for value in values:
                with self.assertRaises(ValueError, msg=(name, value)) as raised:
                    NamedKey(**{**RIGHT, name: value})
                self.assertIn(name, str(raised.exception))

    def test_no_digest_shown(self) -> None:
        """The representation has no digest."""
        self.assertNotIn(64 * "0", repr(NamedKey(**RIGHT)))

    def test_id(self) -> None:
        """The id is the public id of the secret, as of any other key."""
        from hashlib import sha256

        key = NamedKey(**{**RIGHT, "sha256": sha256(b"tsk_x").hexdigest()})
        self.assertEqual(key.id, public_id(b"tsk_x"))
