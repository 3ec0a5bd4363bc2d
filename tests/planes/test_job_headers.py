# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.planes.job_headers`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.planes.job_headers import hidden_headers, job_headers

NAMES = st.sampled_from(
    [b"url_path", b"explain", b"describe", b"authorization", b"proxy-authorization", b"x-a", b"host"]
)
SPELLINGS = st.sampled_from([bytes.lower, bytes.upper, bytes.title])
HEADERS = st.lists(st.tuples(st.builds(lambda name, spell: spell(name), NAMES, SPELLINGS), st.binary(max_size=4)))


class JobHeaderTests(SynchronousTestCase):
    """Headers that a handler sees."""

    @given(HEADERS, st.booleans())
    def test_hidden(self, headers: list[tuple[bytes, bytes]], tokens: bool) -> None:
        """However a client spells them, the server's headers are hidden, and credentials if the server checks them."""
        hidden = {"url_path", "explain", "describe"}
        if tokens:
            hidden |= {"authorization", "proxy-authorization"}
        seen = job_headers(headers, hidden_headers(tokens))
        self.assertEqual(hidden & {name.lower() for name in seen}, set())
        expected = {n.decode("latin-1"): v.decode("latin-1") for n, v in headers if n.lower().decode() not in hidden}
        self.assertEqual(seen, expected)

    def test_repeated(self) -> None:
        """The last of repeated headers counts, and spelling is kept."""
        headers = [(b"X-A", b"1"), (b"X-A", b"\xe9"), (b"x-a", b"3")]
        self.assertEqual(job_headers(headers, hidden_headers(True)), {"X-A": "é", "x-a": "3"})
