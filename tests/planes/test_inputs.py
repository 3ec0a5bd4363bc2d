# SPDX-License-Identifier: Apache-2.0
"""Tests for the way from a body to a handler's inputs: forms byte for byte, and forms that are none."""

from __future__ import annotations

import time
from collections.abc import Callable
from unittest.mock import patch
from urllib.parse import unquote_to_bytes

from attrs import frozen
from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import BadRequest
from twisted_serve.planes import inputs
from twisted_serve.planes.inputs import MOST_PARTS, media_type, parts_of
from twisted_serve.wire.messages import Part

URLENCODED = "application/x-www-form-urlencoded"

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))

# RFC 2046 §5.1.1; a boundary with a blank or a colon in it has to be quoted.
BOUNDARIES = st.text("0123456789abcXYZ'()+_,-./:=?", min_size=1, max_size=70)

# What a header can say of a name: no line ends, no quotes and no backslash, which browsers escape in different ways.
NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\%\u2028\u2029\x85'), min_size=1, max_size=30
)

MEDIA_TYPES = st.sampled_from(["application/json", "text/plain", "image/png", "application/octet-stream"])

# The parts of a value in which a careless reader sees a boundary.
TEASERS = st.sampled_from([b"\r\n", b"--", b"\r\n--", b"\n--", b"--\r\n", b"\r", b"\n", b"b", b"\r\n\r\n"])
VALUES = st.binary(max_size=60) | st.lists(TEASERS, max_size=12).map(b"".join)


@frozen
class Field:
    """A field of a form."""

    name: str
    value: bytes
    filename: str | None = None
    media_type: str | None = None

    def written(self) -> bytes:
        """Write it as RFC 7578 §4.2 says."""
        disposition = f'form-data; name="{self.name}"'
        if self.filename is not None:
            disposition += f'; filename="{self.filename}"'
        head = f"Content-Disposition: {disposition}\r\n"
        if self.media_type is not None:
            head += f"Content-Type: {self.media_type}\r\n"
        return head.encode() + b"\r\n" + self.value

    def part(self) -> Part:
        """Say what a handler shall get."""
        if self.filename is None:
            return Part(self.name, "", self.value, decode=False)
        return Part(self.name, self.media_type or "application/octet-stream", self.value)


FIELDS = st.lists(st.builds(Field, NAMES, VALUES, st.none() | NAMES, st.none() | MEDIA_TYPES), max_size=8)


def multipart(boundary: str, fields: list[Field]) -> bytes:
    """Write a form."""
    delimiter = b"--" + boundary.encode()
    return b"".join(delimiter + b"\r\n" + field.written() + b"\r\n" for field in fields) + delimiter + b"--\r\n"


def parts_or_refusal(content_type: str, body: bytes) -> list[Part] | None:
    """Read a body; nothing but BadRequest may be raised."""
    try:
        return parts_of(content_type, body)
    except BadRequest:
        return None


def escaped(data: bytes) -> bytes:
    """Write every byte as a percent escape."""
    return b"".join(b"%%%02x" % byte for byte in data)


class MultipartTests(SynchronousTestCase):
    """Tests for ``multipart/form-data``."""

    @given(BOUNDARIES, FIELDS)
    @example("x", [Field("a", b"\r\n--", "f", None)])
    @example("boundary=", [Field("boundary=evil", b"")])
    def test_round_trip(self, boundary: str, fields: list[Field]) -> None:
        """Every field comes with its very bytes, in order, whatever in them looks like a boundary."""
        assume(not any(b"\r\n--" + boundary.encode() in b"\r\n" + field.value + b"\r\n" for field in fields))
        found = parts_of(f'multipart/form-data; boundary="{boundary}"', multipart(boundary, fields))
        self.assertEqual(found, [field.part() for field in fields])

    @given(st.text("0123456789abcXYZ'()+_-.", min_size=1, max_size=70), FIELDS)
    def test_unquoted_boundary(self, boundary: str, fields: list[Field]) -> None:
        """A boundary without quotes, and parameters around it, are read the same."""
        assume(not any(b"\r\n--" + boundary.encode() in b"\r\n" + field.value + b"\r\n" for field in fields))
        found = parts_of(f"Multipart/Form-Data;charset=utf-8; boundary={boundary}; x=y", multipart(boundary, fields))
        self.assertEqual(found, [field.part() for field in fields])

    @given(FIELDS.filter(bool), st.data())
    def test_truncated(self, fields: list[Field], data: st.DataObject) -> None:
        """A form that breaks off is refused, wherever it does."""
        whole = multipart("BOUNDARY", fields)
        assume(not any(b"BOUNDARY" in field.value for field in fields))
        cut = data.draw(st.integers(0, len(whole) - len(b"--\r\n") - 1))
        self.assertRaises(BadRequest, parts_of, "multipart/form-data; boundary=BOUNDARY", whole[:cut])

    @given(FIELDS.filter(bool), st.data())
    def test_damaged(self, fields: list[Field], data: st.DataObject) -> None:
        """A form with a byte changed, left out or put in is read or refused, and nothing else."""
        body = bytearray(multipart("B", fields))
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=2))
        parts_or_refusal("multipart/form-data; boundary=B", bytes(body))

    @given(st.binary(max_size=300))
    @example(b"--B\r\n\r\n--B--\r\n")
    @example(b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n")
    @example(b'--B\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--B--\r\n')
    @example(b'--B\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--B--\r\n')
    @example(b"--B\r\nContent-Disposition: form-data; name=\"a\"; filename*=utf-8''%ff\r\n\r\nx\r\n--B--\r\n")
    @example(b'--B\r\nContent-Disposition: form-data; name="a"\r\nContent-Length: -1\r\n\r\nx\r\n--B--\r\n')
    @example(
        b'--B\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: \xff;charset=nope\r\n\r\nx\r\n--B--\r\n'
    )
    @example(b"--B" + b"\r\n" * 100)
    def test_not_a_form(self, body: bytes) -> None:
        """Any bytes are read or refused, and nothing else."""
        parts_or_refusal("multipart/form-data; boundary=B", body)

    @given(st.text(st.characters(max_codepoint=255), max_size=250), st.binary(max_size=50))
    @example("", b"--\r\n--\r\n")
    @example('""', b"----")
    @example('"unfinished', b"--unfinished--")
    @example("a" * 250, b"--" + b"a" * 250 + b"--")
    @example("\xe9", b"--\xe9--")
    @example("a\r\nb", b"--a\r\nb--")
    def test_hostile_boundary(self, boundary: str, body: bytes) -> None:
        """Any boundary is used or refused, and nothing else."""
        for content_type in (f"multipart/form-data; boundary={boundary}", f"multipart/form-data;{boundary}boundary=x"):
            parts_or_refusal(content_type, body)

    def test_no_boundary(self) -> None:
        """Without a boundary it is no form, and the handler gets the body."""
        [part] = parts_of("multipart/form-data", b"--x--")
        self.assertEqual(part, Part("body", "multipart/form-data", b"--x--"))

    def test_preamble(self) -> None:
        """A line end before the first boundary, as some clients have it, does no harm."""
        body = b"\r\n" + multipart("B", [Field("a", b"1")])
        self.assertEqual(parts_or_refusal("multipart/form-data; boundary=B", body), [Field("a", b"1").part()])

    def test_lines_that_end_with_lf(self) -> None:
        """A body with LF alone, as scripts write it, is read as with TorchServe; the parts keep their own line ends."""
        for value in (b"", b"1", b"a\nb", b"a\r\nb\r\n", b"\r", b"\n", b"--", b"\n--", b"\xff\x00"):
            fields = [Field("a", value), Field("b", value, "f.bin", "image/png")]
            body = b"".join(
                b"--B\n" + field.written().replace(b"\r\n", b"\n", 3 if field.filename else 2) + b"\n"
                for field in fields
            )
            for before in (b"", b"\n", b"a preamble\n"):
                found = parts_of("multipart/form-data; boundary=B", before + body + b"--B--\n")
                self.assertEqual(found, [field.part() for field in fields])

    def test_one_reading(self) -> None:
        """The first boundary decides how lines end, and no body has two readings."""
        head = b'Content-Disposition: form-data; name="%s"'
        for crlf in (b"\n--B\n", b"\n--B--\n", b"\n--B\n" + head % b"c" + b"\n\nd"):
            [part] = parts_of(
                "multipart/form-data; boundary=B", b"--B\r\n" + head % b"a" + b"\r\n\r\n" + crlf + b"\r\n--B--"
            )
            self.assertEqual(part, Part("a", "", crlf, decode=False))
        for broken in (
            b"--B\n" + head % b"a" + b"\n\n1",
            b"--B\n" + head % b"a" + b"\n1\n--B--\n",
            b"--B\n" + head % b"a" + b"\n\n1\n--BX\n--B--\n",
            b"--B\n" + head % b"a" + b"\r\n\r\n1\r\n--B--\r\n",
            b"x--B\n" + head % b"a" + b"\n\n1\n--B--\n",
        ):
            self.assertIsNone(parts_or_refusal("multipart/form-data; boundary=B", broken), broken)

    @given(FIELDS, st.sampled_from([b"\n", b"\r\n"]))
    def test_any_form_with_lf(self, fields: list[Field], end: bytes) -> None:
        """Whatever the parts hold, a form is the same one with LF around them as with CRLF."""
        assume(not any(b"\n--B" in b"\n" + field.value + b"\n" for field in fields))
        body = b""
        for field in fields:
            written = field.written()
            head = written[: len(written) - len(field.value)]
            body += b"--B" + end + head.replace(b"\r\n", end) + field.value + end
        found = parts_of("multipart/form-data; boundary=B", body + b"--B--" + end)
        self.assertEqual(found, [field.part() for field in fields])

    def test_boundaries(self) -> None:
        """The boundary is that parameter's, however it is spelled, and no other's."""
        body = multipart("B", [Field("a", b"1")])
        for parameters in (
            "boundary=B",
            "Boundary=B",
            'BOUNDARY="B"',
            "x-boundary=A; boundary=B",
            'x="; boundary=A";boundary=B',
        ):
            self.assertEqual(
                parts_of(f"multipart/form-data; {parameters}", body), [Field("a", b"1").part()], parameters
            )

    def test_siblings(self) -> None:
        """A preamble, a folded header, an extended file name and a charset are read; a missing end is refused."""
        field = Field("a", b"1", "f", "text/plain")
        whole = multipart("B", [field])
        for body in (
            b"This is a message.\r\n" + whole,
            whole.replace(b"form-data; ", b"form-data;\r\n "),
            whole + b"an epilogue",
        ):
            self.assertEqual(parts_of("multipart/form-data; boundary=B", body), [field.part()], body)
        extended = whole.replace(b'filename="f"', b"filename*=UTF-8''%E4%B8%AD")
        self.assertEqual(parts_of("multipart/form-data; boundary=B", extended), [field.part()])
        [part] = parts_of("multipart/form-data; boundary=B", whole.replace(b"text/plain", b"text/plain; charset=utf-8"))
        self.assertEqual(part.value, b"1")
        self.assertIsNone(parts_or_refusal("multipart/form-data; boundary=B", whole[: whole.index(b"\r\n--B--")]))

    def test_most_parts(self) -> None:
        """As many parts as any form has are read; thousands are refused, saying so, in no time."""
        fields = [Field(f"f{number}", b"x") for number in range(MOST_PARTS)]
        self.assertEqual(len(parts_of("multipart/form-data; boundary=B", multipart("B", fields))), MOST_PARTS)
        for more in (1, 50 * MOST_PARTS):
            body = multipart("B", fields + [Field("more", b"x")] * more)
            self.assertRaises(BadRequest, parts_of, "multipart/form-data; boundary=B", body)

    def test_long_part_headers(self) -> None:
        """A part whose headers have no end is refused."""
        for head in (b"X: " + b"y" * 100_000, b"X: y\r\n" * 100_000):
            body = b"--B\r\n" + head + b"\r\n\r\nvalue\r\n--B--\r\n"
            self.assertRaises(BadRequest, parts_of, "multipart/form-data; boundary=B", body)


class UrlencodedTests(SynchronousTestCase):
    """Tests for ``application/x-www-form-urlencoded``."""

    @given(st.lists(st.tuples(TEXTS.filter(bool), st.binary()), min_size=1, max_size=10))
    def test_round_trip(self, fields: list[tuple[str, bytes]]) -> None:
        """Every field comes with its very bytes, in order."""
        body = b"&".join(escaped(name.encode()) + b"=" + escaped(value) for name, value in fields)
        expected = [Part(name, "", value, decode=False) for name, value in fields]
        self.assertEqual(parts_of(URLENCODED, body), expected)
        self.assertEqual(parts_of("Application/X-WWW-Form-Urlencoded; charset=UTF-8", body), expected)

    @given(st.binary(max_size=300))
    def test_anything(self, body: bytes) -> None:
        """Any bytes are fields, or none; a field has a name."""
        for part in parts_of(URLENCODED, body):
            self.assertNotEqual(part.name, "")
            self.assertFalse(part.decode)

    def test_odd_forms(self) -> None:
        """Blanks are pluses; what has no name does not count, nor does a last name alone; text is no form."""

        def read(body: bytes) -> list[tuple[str, bytes]]:
            return [(part.name, part.value) for part in parts_of(URLENCODED, body)]

        self.assertEqual(read(b"a+b=c+d&e=%2B"), [("a b", b"c d"), ("e", b"+")])
        self.assertEqual(read(b"=x&a=1"), [("a", b"1")])
        self.assertEqual(read(b"a=1&b"), [("a", b"1")])
        self.assertEqual(read(b"a&b=2"), [("a", b""), ("b", b"2")])
        self.assertEqual(read(b"a=1&a=2"), [("a", b"1"), ("a", b"2")])
        self.assertEqual(read(b"a=b=c"), [("a", b"b=c")])
        self.assertEqual(read(b"a=%zz%4"), [("a", b"%zz%4")])
        self.assertEqual(read(b"plain text"), [])
        self.assertEqual(read(b""), [])

    def test_most_fields(self) -> None:
        """As many fields as any form has are read; more are refused, saying so."""
        body = b"&".join([b"a=1"] * MOST_PARTS)
        self.assertEqual(len(parts_of(URLENCODED, body)), MOST_PARTS)
        error = self.assertRaises(BadRequest, parts_of, URLENCODED, body + b"&a=1")
        self.assertIn(str(MOST_PARTS), error.message)


class RawTests(SynchronousTestCase):
    """Tests for all other inputs."""

    @given(st.binary(), MEDIA_TYPES | st.just(""), st.sampled_from(["", ";charset=utf-8", " ; q=1"]))
    def test_body(self, body: bytes, kind: str, parameters: str) -> None:
        """Any other body is one part, as it is, with its type without parameters."""
        self.assertEqual(parts_of(kind + parameters, body), [Part("body", kind, body)])

    @given(st.text())
    def test_media_type(self, content_type: str) -> None:
        """A media type is what stands before the first semicolon, without blanks around it."""
        found = media_type(content_type)
        self.assertEqual(found, found.strip())
        self.assertNotIn(";", found)


class EscapeTests(SynchronousTestCase):
    """Tests for percent escapes."""

    @given(
        st.lists(st.sampled_from([b"%", b"%4", b"%41", b"%25", b"%2", b"F", b"f", b"%zz", b"\xff", b"%Ff", b"=", b"a"]))
    )
    def test_as_the_library(self, pieces: list[bytes]) -> None:
        """They are decoded as Python's library does it, and what is none stays."""
        value = b"".join(pieces)
        # As it is, and cut into pieces at any place.
        for piece in (1 << 14, 3, 4, 5, 7):
            with patch.object(inputs, "_PIECE", piece):
                [part] = parts_of(URLENCODED, b"a=" + value)
            self.assertEqual(part.value, unquote_to_bytes(value))


class SpeedTests(SynchronousTestCase):
    """Tests for bodies which are made to take long."""

    def test_linear(self) -> None:
        """No body of a megabyte keeps the server busy for a second: the time grows with the size alone."""
        size = 1 << 20
        hostile: tuple[tuple[str, Callable[[], bytes]], ...] = (
            ("multipart/form-data; boundary=B", lambda: b"--B\r\n" * (size // 5)),
            ("multipart/form-data; boundary=B", lambda: b"--B\r\nA: b\r\n\r\n" + b"\r\n--" * (size // 4)),
            ("multipart/form-data; boundary=B", lambda: b"\r" * size),
            (f"multipart/form-data; boundary={'-' * 70}", lambda: b"-" * size),
            ("multipart/form-data; boundary=B", lambda: b"--B" + b"\n--B" * (size // 4)),
            ("multipart/form-data; boundary=B", lambda: b"--B\n" + b"\n\n" * (size // 2)),
            ("multipart/form-data; boundary=B", lambda: b"\n--" * (size // 3)),
            (URLENCODED, lambda: b"%" * size),
            (URLENCODED, lambda: b"&" * size),
            (URLENCODED, lambda: b"a=" + b"%41" * (size // 3)),
        )
        for content_type, make in hostile:
            body = make()
            began = time.process_time()
            parts_or_refusal(content_type, body)
            self.assertLess(time.process_time() - began, 1, (content_type, body[:20]))
