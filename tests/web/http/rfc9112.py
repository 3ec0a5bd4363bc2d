# SPDX-License-Identifier: Apache-2.0
"""The sentences of RFC 9112 and RFC 9110 that bind a server which reads requests, each with bytes and their outcome."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

OK = "200"
REFUSED = "400, closed"


@frozen
class Case:
    """
    A sentence, and what is sent to try it.

    :ivar section: Of RFC 9112, or of RFC 9110 with a colon.
    :ivar rule: The sentence, shortened.
    :ivar sent: The bytes of one connection.
    :ivar outcome: The statuses of the answers, and whether the connection is closed then.
    """

    section: str
    rule: str
    sent: bytes
    outcome: str


def get(*lines: bytes, target: bytes = b"/ping", host: bytes = b"Host: h\r\n", version: bytes = b"HTTP/1.1") -> bytes:
    """Write a request without a body."""
    return b"GET %s %s\r\n%s%s\r\n" % (target, version, host, b"".join(line + b"\r\n" for line in lines))


def post(*lines: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    """Write a request whose headers say how long its body is."""
    return b"POST /ping %s\r\nHost: h\r\n%s\r\n%s" % (version, b"".join(line + b"\r\n" for line in lines), body)


CHUNKED = b"Transfer-Encoding: chunked"


def _chunked(body: bytes) -> bytes:
    return post(CHUNKED, body=body)


_SMUGGLED = get()


def _cases() -> Iterator[tuple[str, str, bytes, str]]:
    # Messages
    yield "2.2", "An empty line before the request line is ignored.", b"\r\n" + get(), OK
    yield "2.2", "LF alone ends no line, although a recipient may take it so.", get().replace(b"\r", b""), ""
    yield "2.2", "", get(b"A: b\nTransfer-Encoding: chunked"), REFUSED
    yield "2.2", "A bare CR is invalid, or replaced by SP.", get(b"A: b\rc"), REFUSED
    yield "2.2", "", get(target=b"/ping\r"), REFUSED
    yield "2.2", "", get(b"A\r: b"), REFUSED
    yield (
        "2.2",
        "Whitespace between the request line and the first header: refused, or the line is dropped.",
        get(b" Content-Length: 5", host=b"").replace(b"\r\n\r\n", b"\r\nHost: h\r\n\r\n"),
        REFUSED,
    )
    yield "2.3", "The version is case-sensitive, one digit, a dot, one digit.", get(version=b"http/1.1"), REFUSED
    yield "2.3", "", get(version=b"HTTP/1.10"), REFUSED
    yield "2.3", "", get(version=b"HTTP/1"), REFUSED
    yield "2.3", "", b"GET /ping\r\n\r\n", REFUSED
    yield "9110:2.5", "A higher minor version is handled as the highest known one.", get(version=b"HTTP/1.2"), OK
    yield "9110:15.6.6", "Another major version may be refused with 505.", get(version=b"HTTP/2.0"), "505, closed"
    yield "9110:15.6.6", "", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505, closed"

    # The request line
    yield "3", "An invalid request line is refused, not repaired: whitespace.", get(target=b"/a b"), REFUSED
    yield "3", "", b" " + get(), REFUSED
    yield "3", "", get(version=b"HTTP/1.1 "), REFUSED
    yield "3", "", get().replace(b"GET ", b"GET\t"), REFUSED
    yield "3", "", get(target=b" /ping"), REFUSED
    yield "3", "", get(target=b""), REFUSED
    yield "3.1", "The method is a token.", get().replace(b"GET", b"G(T"), REFUSED
    yield "3.1", "", get().replace(b"GET", b"G\x00T"), REFUSED
    yield "3.2", "The target has no characters outside of the grammar.", get(target=b"/\x7f"), REFUSED
    yield "3.2", "", get(target=b"/\x80"), REFUSED
    yield "3.2", "", get(target=b"/\xe9"), REFUSED
    yield "3.2", "", get(target=b"/\x00"), REFUSED
    yield "3.2", "400 for HTTP/1.1 without Host.", get(host=b""), REFUSED
    yield "3.2", "", get(host=b"", version=b"HTTP/1.0"), "200, closed"
    yield "3.2", "400 for more than one Host.", get(b"Host: h"), REFUSED
    yield "3.2", "", get(b"host: other"), REFUSED
    yield "3.2", "", get(b"Host: h", version=b"HTTP/1.0"), REFUSED
    yield "3.2", "400 for an invalid Host.", get(host=b"Host: a b\r\n"), REFUSED
    yield "3.2", "", get(host=b"Host: a, b\r\n"), REFUSED
    yield "3.2", "", get(host=b"Host: u@h\r\n"), REFUSED
    yield "3.2", "", get(host=b"Host: h/p\r\n"), REFUSED
    yield "3.2", "", get(host=b"Host: h:p\r\n"), REFUSED
    yield "3.2", "", get(host=b"Host: [::1\r\n"), REFUSED
    yield "3.2", "", get(host=b"Host: \xff\r\n"), REFUSED
    yield "3.2", "An empty Host is valid, and so is one with a port.", get(host=b"Host:\r\n"), OK
    yield "3.2", "", get(host=b"Host: [::1]:8080\r\n"), OK
    yield "3.2.2", "The absolute form is accepted, and Host ignored.", get(target=b"http://other:1/ping"), OK
    yield "3.2.2", "It has a host, and Host must be there and valid all the same.", get(target=b"http:///ping"), REFUSED
    yield "3.2.2", "", get(target=b"http://u:p@h/ping"), REFUSED
    yield "3.2.2", "", get(target=b"http://h/ping", host=b""), REFUSED
    yield "3.2.3", "The authority form is for CONNECT.", get(target=b"h:80"), REFUSED
    yield "3.2.4", "The asterisk form is for OPTIONS.", get(target=b"*"), REFUSED

    # Header fields
    yield "5", "A header without a colon is invalid.", get(b"A"), REFUSED
    yield "5", "A name is a token.", get(b"A(b: c"), REFUSED
    yield "5", "", get(b": c"), REFUSED
    yield "5", "", get(b"A\x00: c"), REFUSED
    yield "5", "", get(b"\xe9: c"), REFUSED
    yield "5.1", "400 for whitespace between name and colon.", get(b"A : b"), REFUSED
    yield "5.1", "", get(b"Content-Length : 5"), REFUSED
    yield "5.1", "", get(b"Transfer-Encoding\t: chunked"), REFUSED
    yield "5.1", "Whitespace around a value is no part of it.", post(b"Content-Length: \t1 \t", body=b"x"), OK
    yield "5.2", "obs-fold: refused, or replaced by SP.", get(b"A: b\r\n c"), REFUSED
    yield "5.2", "", post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"), REFUSED
    yield "9110:5.5", "No CR, LF or NUL in a value.", get(b"A: b\x00c"), REFUSED
    yield "9110:5.5", "Other control characters are invalid, too.", get(b"A: b\x01c"), REFUSED
    yield "9110:5.5", "", get(b"A: b\x7fc"), REFUSED
    yield "9110:5.5", "Tabs and bytes from 0x80 are part of a value.", get(b"A: b\tc\xe9"), OK

    # Transfer-Encoding
    both = b"Content-Length: %d" % len(_SMUGGLED)
    coded = b"Transfer-Encoding: "
    empty = b"0\r\n\r\n"
    yield "6.1", "A coding that is not understood: 501.", post(coded + b"gzip, chunked", body=empty), "501, closed"
    yield "6.1", "identity is no coding.", post(coded + b"identity", both, body=_SMUGGLED), REFUSED
    yield "6.1", "", post(coded + b"identity", body=_SMUGGLED), REFUSED
    yield "6.1", "", post(coded + b"identity", CHUNKED, body=empty), REFUSED
    yield "6.1", "", post(coded + b"identity, chunked", body=empty), REFUSED
    yield "6.1", "chunked is applied once.", post(coded + b"chunked, chunked", body=empty), REFUSED
    yield "6.1", "", post(CHUNKED, CHUNKED, body=empty), REFUSED
    yield "6.1", "With a Content-Length: refused, or closed afterwards.", post(CHUNKED, both, body=empty), REFUSED
    yield "6.1", "", post(both, CHUNKED, body=empty), REFUSED
    yield "6.1", "Faulty in HTTP/1.0.", post(CHUNKED, body=empty + _SMUGGLED, version=b"HTTP/1.0"), REFUSED
    yield (
        "6.1",
        "",
        post(CHUNKED, b"Connection: keep-alive", body=empty + _SMUGGLED, version=b"HTTP/1.0"),
        REFUSED,
    )
    yield "6.3", "400 if chunked is not the last coding.", post(coded + b"chunked, gzip", body=empty), REFUSED
    yield "6.3", "", post(coded + b"gzip", body=_SMUGGLED), REFUSED
    yield "6.3", "", post(coded + b"xchunked", body=empty), REFUSED
    yield "6.3", "", post(coded + b"chunked;q=1", body=empty), REFUSED
    yield "6.3", "", post(coded + b'"chunked"', body=empty), REFUSED
    yield "6.3", "", post(coded, body=_SMUGGLED), REFUSED
    yield "6.3", "", post(coded + b"\x0bchunked", body=empty), REFUSED
    yield "7", "The names of codings are case-insensitive.", post(coded + b"Chunked", body=empty), OK

    # Content-Length
    length = b"Content-Length: "
    yield "6.3", "400 for an invalid Content-Length.", post(length + b"-1", body=b"x"), REFUSED
    yield "6.3", "", post(length + b"+1", body=b"x"), REFUSED
    yield "6.3", "", post(length + b"0x1", body=b"x"), REFUSED
    yield "6.3", "", post(length + b"1.0", body=b"x"), REFUSED
    yield "6.3", "", post(length + b"1_0", body=b"x"), REFUSED
    yield "6.3", "", post(length + b"1 1", body=b"x"), REFUSED
    yield "6.3", "", post(length, body=b"x"), REFUSED
    yield "6.3", "", post(length + b"\xb2", body=b"xx"), REFUSED
    yield "6.3", "", post(length + b"9" * 400), REFUSED
    yield "6.3", "400 for values that differ.", post(length + b"1", length + b"2", body=b"xx"), REFUSED
    yield "6.3", "", post(length + b"1, 2", body=b"xx"), REFUSED
    yield "9110:8.6", "The same value twice: refused, or taken once.", post(length + b"1, 1", body=b"x"), REFUSED
    yield "9110:8.6", "", post(length + b"1", length + b"1", body=b"x"), REFUSED
    yield "6.3", "Neither: there is no body.", post(body=get()), "200 200"
    yield "9110:9.3.1", "A body of GET is read, so that it is no request.", get(both) + _SMUGGLED, OK
    yield "6.3", "No answer before the whole body is there.", post(length + b"5", body=b"1234"), ""

    # Chunks
    yield "7.1", "The size is hexadecimal.", _chunked(b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"), OK
    yield "7.1", "", _chunked(b"001\r\nx\r\n00\r\n\r\n"), OK
    yield "7.1", "", _chunked(b"-1\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b"+1\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b"0x1\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b"1_0\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b" 1\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b"\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b"g\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "Large sizes overflow nothing.", _chunked(b"f" * 100 + b"\r\nx"), ""
    yield "7.1", "", _chunked(b"0" * 2000 + b"1\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "CRLF ends a size and a chunk.", _chunked(b"1\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b"1\r\nxy\r\n0\r\n\r\n"), REFUSED
    yield "7.1", "", _chunked(b"1\r\nx\n0\r\n\r\n"), REFUSED
    yield "7.1.1", "Unknown extensions are ignored.", _chunked(b"1;a=b;c\r\nx\r\n0;d\r\n\r\n"), OK
    yield "7.1.1", "Their length is bounded.", _chunked(b"1;" + b"a" * 2000 + b"\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1.1", "", _chunked(b"1;a\nb\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1.1", "", _chunked(b"1;a\x00\r\nx\r\n0\r\n\r\n"), REFUSED
    yield "7.1.2", "Trailers may be dropped; they change no header.", _chunked(b"0\r\nHost: x\r\nA: b\r\n\r\n"), OK
    yield "7.1.2", "They are header fields.", _chunked(b"0\r\nA\r\n\r\n"), REFUSED
    yield "7.1.2", "", _chunked(b"0\r\nA : b\r\n\r\n"), REFUSED
    yield "7.1.2", "", _chunked(b"0\r\nA: b\r\n c\r\n\r\n"), REFUSED
    yield "7.1.2", "", _chunked(b"0\r\nA: b\n\nGET /ping HTTP/1.1\r\n\r\n"), REFUSED
    yield "7.1.2", "Their length is bounded.", _chunked(b"0\r\n" + b"A: b\r\n" * 20000 + b"\r\n"), REFUSED

    # Answers, and connections
    yield "6.3", "The answer to HEAD has no body.", get().replace(b"GET", b"HEAD"), OK
    yield "9.3", "The connection goes on.", get() + get(), "200 200"
    yield "9.3", "In HTTP/1.0 only if asked.", get(version=b"HTTP/1.0") + get(), "200, closed"
    yield (
        "9.3",
        "",
        get(b"Connection: keep-alive", version=b"HTTP/1.0") + get(b"Connection: keep-alive", version=b"HTTP/1.0"),
        "200 200",
    )
    yield "9.6", "After close no further request is answered.", get(b"Connection: close") + get(), "200, closed"
    yield "9.6", "", get(b"Connection: keep-alive, Close") + get(), "200, closed"
    yield "9.6", "", get(b"Connection: x", b"Connection: close") + get(), "200, closed"
    yield (
        "9110:10.1.1",
        "100 goes before the body, in HTTP/1.1.",
        post(length + b"1", b"Expect: 100-continue"),
        "100",
    )
    yield (
        "9110:10.1.1",
        "",
        post(length + b"1", b"Expect: 100-continue", body=b"x", version=b"HTTP/1.0"),
        "200, closed",
    )
    yield "9110:10.1.1", "417 for another expectation.", post(length + b"1", b"Expect: x", body=b"x"), "417, closed"
    yield "9110:7.8", "Upgrade may be ignored.", get(b"Connection: Upgrade", b"Upgrade: h2c"), OK


def _read() -> tuple[Case, ...]:
    """Make the cases; a sentence that is left out is the one before."""
    cases: list[Case] = []
    for section, rule, sent, outcome in _cases():
        cases.append(Case(section, rule or cases[-1].rule, sent, outcome))
    return tuple(cases)


CASES = _read()
