# SPDX-License-Identifier: Apache-2.0
"""
Attack the gate with what is near to the secret of a named key, or known of it.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from random import Random

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.named.keys import NOW, some_key
from twisted_serve.auth.gate import Allowed, Authorizer, Denied
from twisted_serve.auth.keyring import Keyring, Reason
from twisted_serve.auth.named.codec import Content, render
from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.live import NamedKeys
from twisted_serve.auth.named.secrets import LENGTH, fresh_secret
from twisted_serve.auth.needs import Need
from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.interfaces import Operation

SECRET = fresh_secret(Random(1).randbytes).encode()
KEY = evolve(some_key("consumer"), sha256=sha256(SECRET).hexdigest())


class AttackTests(SynchronousTestCase):
    """Tests for the gate of a server with one named key."""

    def setUp(self) -> None:
        self.keys = NamedKeys(lambda: 0.0)
        self.keys.use(self.keys.indexed([KEY]))
        keyring = Keyring.create(lambda keys: None, Random(2).randbytes, timedelta(hours=1), NOW, lambda: 0.0)
        need = Need(Operation.PREDICT, TokenKind.INFERENCE, "resnet")
        self.gate = Authorizer(lambda method, target: need, keyring, lambda: NOW, self.keys)

    def ask(self, *headers: bytes) -> Allowed | Denied:
        """Ask with these ``Authorization`` headers."""
        return self.gate.ask(b"POST", parse_target(b"/predictions/resnet"), headers)

    def assert_unknown(self, presented: bytes) -> None:
        """Assert that a text is refused, and that the refusal does not say that it is near to a key."""
        answer = self.ask(b"Bearer " + presented)
        assert isinstance(answer, Denied), presented
        self.assertIn(answer.reason, (Reason.UNKNOWN, Reason.MALFORMED))
        self.assertEqual((answer.key_id, answer.name), (None, None))
        self.assertIsNone(self.keys.index.by_name["consumer"].state.last_used)

    def test_right(self) -> None:
        """The secret is accepted: else the other tests would show nothing."""
        self.assertIsInstance(self.ask(b"bearer  " + SECRET), Allowed)

    @given(st.integers(0, LENGTH - 1), st.integers(1, 255), st.integers(0, LENGTH - 1))
    def test_near(self, place: int, bits: int, end: int) -> None:
        """A secret with one byte changed, a part of one, and one with more around it are refused."""
        changed = bytearray(SECRET)
        changed[place] ^= bits
        for presented in (bytes(changed), SECRET[:end], SECRET[end:] + SECRET[:end] if end else b"", SECRET + SECRET):
            self.assert_unknown(presented)

    def test_forms(self) -> None:
        """Other forms of the secret are refused: no comparison is lenient."""
        encoded = b"".join(b"%%%02x" % byte for byte in SECRET)
        for presented in (
            SECRET.upper(),
            SECRET.lower(),
            SECRET.swapcase(),
            SECRET + b"\x00",
            b"\xef\xbb\xbf" + SECRET,
            SECRET + b"\xc2\xa0",
            b'"' + SECRET + b'"',
            SECRET + b"=",
            SECRET + b",",
            encoded,
            SECRET.decode().encode("utf-16-le"),
        ):
            self.assert_unknown(presented)

    def test_known(self) -> None:
        """What the store, a log or a listing says of a key opens nothing: its digest is no password."""
        store = render(KeyRecords([KEY]), Content())[0]
        digest = KEY.sha256.encode()
        for presented in (
            KEY.name.encode(),
            KEY.id.encode(),
            digest,
            bytes.fromhex(KEY.sha256),
            b"tsk_" + digest,
            b"tsk_" + bytes.fromhex(KEY.sha256),
            b"tsk_" + KEY.id.encode(),
            b"tsk_" + KEY.name.encode(),
            b"tsk_",
        ):
            self.assert_unknown(presented)
        self.assertNotIn(SECRET, store)
        self.assertNotIn(SECRET.decode(), repr((KEY, self.keys.index, self.ask(b"Bearer " + SECRET))))

    def test_long(self) -> None:
        """A text of megabytes is refused by its length, and one at the bound costs one digest."""
        for length in (512, 513, 10_000_000):
            self.assert_unknown(b"tsk_" + b"a" * (length - 4))

    def test_several(self) -> None:
        """The secret in one of two headers, or beside another text, is refused."""
        header = b"Bearer " + SECRET
        for headers in ((header, header), (header, b""), (b"Bearer x " + SECRET,), (b"Basic " + SECRET,), (SECRET,)):
            self.assertIsInstance(self.ask(*headers), Denied)

    @given(st.binary(max_size=80))
    def test_any(self, more: bytes) -> None:
        """Whatever bytes follow the prefix, the answer is a refusal."""
        self.assert_unknown(b"tsk_" + more)
