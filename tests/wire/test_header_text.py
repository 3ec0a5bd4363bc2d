# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.wire.header_text`."""

from __future__ import annotations

import time
from email.message import Message
from urllib.parse import unquote

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.wire.header_text import sendable

NAMES = ("X-A", "Content-Disposition", "content-disposition", "Content-Type")


class SendableTests(SynchronousTestCase):
    """Tests for `sendable`."""

    def test_question_marks(self) -> None:
        """A character outside latin-1 becomes a question mark; all others are kept."""
        self.assertEqual(sendable("X-A", "filename=中文"), "filename=??")
        self.assertEqual(sendable("X-A", "é € \U0001f600"), "é ? ?")
        self.assertEqual(sendable("Content-Type", "text/plain; title=日本"), "text/plain; title=??")

    def test_file_names(self) -> None:
        """A file name is there in full, for clients that know RFC 8187, and in question marks for others."""
        for value, expected in (
            ("attachment; filename=中文", "attachment; filename=??; filename*=UTF-8''%E4%B8%AD%E6%96%87"),
            (
                'attachment; filename="€ \\" a.png"',
                'attachment; filename="? \\" a.png"; filename*=UTF-8\'\'%E2%82%AC%20%22%20a.png',
            ),
            ("attachment; filename*=中", "attachment; filename*=UTF-8''%E4%B8%AD"),
            ("attachment; filename*=UTF-8''中", "attachment; filename*=UTF-8''%E4%B8%AD"),
            (
                "attachment; filename=中; filename*=UTF-8''%E4%B8%AD",
                "attachment; filename=?; filename*=UTF-8''%E4%B8%AD",
            ),
            ("attachment; filename=é", "attachment; filename=é"),
        ):
            self.assertEqual(sendable("Content-Disposition", value), expected)
        self.assertEqual(sendable("X-A", "filename*=中; a"), "filename*=UTF-8''%E4%B8%AD; a")

    @given(st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
    @example("中\\")
    @example(" 中 ")
    @example("UTF-8''中")
    def test_readable(self, name: str) -> None:
        """What is written of a quoted file name, a reader of RFC 2231 reads back."""
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        sent = sendable("Content-Disposition", f'attachment; filename="{quoted}"')
        if all(character <= "\xff" for character in name):
            self.assertNotIn("filename*", sent)
            return
        expected = name.removeprefix("UTF-8''")
        self.assertEqual(unquote(sent.rpartition("; filename*=UTF-8''")[2]), expected)
        message = Message()
        message["Content-Disposition"] = "attachment; " + sent.rpartition("; ")[2]
        # Python's reader strips blanks.
        self.assertEqual(message.get_filename(), expected.strip())

    @given(st.sampled_from(NAMES), st.text() | st.from_regex(r'filename\*?="?[é中"\\;=]*'))
    def test_latin(self, name: str, value: str) -> None:
        """The result is always in latin-1 and stable under repetition, and a latin-1 value is unchanged."""
        sent = sendable(name, value)
        sent.encode("latin-1")
        self.assertEqual(sendable(name, sent), sent)
        if all(character <= "\xff" for character in value):
            self.assertEqual(sent, value)
        self.assertLessEqual(sent.count("\n"), value.count("\n"))
        self.assertLessEqual(sent.count("\r"), value.count("\r"))

    def test_linear(self) -> None:
        """No value keeps the worker busy."""
        for piece in ("filename=", 'filename="', "filename*=", '\\"', "中", "filename=中;"):
            value = piece * (50_000 // len(piece)) + "中"
            began = time.process_time()
            sendable("Content-Disposition", value)
            self.assertLess(time.process_time() - began, 1, piece)
