# SPDX-License-Identifier: Apache-2.0
"""HTTP's framing, sentence by sentence of RFC 9112, beside what a plain Twisted site does with the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.web.http.rfc9112 import CASES, Case, get
from twisted_serve.testing.server import MemoryServer, Role
from twisted_serve.web.http.early_responses import LINGER_SECONDS

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "designs" / "http.md"

VERSION = version("twisted")

ADDRESS = IPv4Address("TCP", "127.0.0.1", 1)

_ANSWER = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Anything(Resource):
    """A plain resource which answers each request alike."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        """Answer."""
        return b"ok"


class Transport(StringTransport):
    """A transport which, like a real one, reads nothing more once it is told to close, and lets go of any producer."""

    def unregisterProducer(self) -> None:
        """Forget the producer, if there is one."""
        self.producer = None


def exchange(build: Callable[[IAddress], Protocol | None], advance: Callable[[float], None], sent: bytes) -> str:
    """
    Send bytes on a connection of its own, and then, if something was answered, one request more.

    :return: The statuses, ``closed`` if the last request was not answered, and what was raised.
    """
    transport = Transport()
    protocol: Any = build(ADDRESS)
    protocol.makeConnection(transport)
    raised = ""
    try:
        protocol.dataReceived(sent)
        # What is long is read in several turns of the reactor.
        advance(0)
    except Exception as e:
        # The reactor would log it and close the connection.
        raised = f", {type(e).__name__}"
        transport.loseConnection()
    statuses = [status.decode() for status in _ANSWER.findall(transport.value())]
    closed = bool(raised)
    if statuses and statuses != ["100"] and not raised:
        if not transport.disconnecting:
            protocol.dataReceived(get())
        closed = len(_ANSWER.findall(transport.value())) == len(statuses)
        advance(LINGER_SECONDS)
        if closed and not transport.disconnecting:
            raised = ", left open"
    protocol.connectionLost(Failure(ConnectionDone()))
    return " ".join(statuses) + (", closed" if closed else "") + raised


def plain(sent: bytes) -> str:
    """Send bytes to a plain site."""
    clock = Clock()
    site = Site(Anything(), reactor=clock)
    site.startFactory()
    try:
        return exchange(site.buildProtocol, clock.advance, sent)
    finally:
        site.stopFactory()


def shown(sent: bytes) -> str:
    """Write the bytes of a case for the page, the middle of many left out."""
    text = repr(sent)[2:-1] if len(sent) < 300 else repr(sent[:100])[2:-1] + " … " + repr(sent[-20:])[2:-1]
    return text.replace("|", "\\|")


def row(case: Case, theirs: str) -> str:
    """Write a row of the page's table."""
    rfc, colon, section = case.section.rpartition(":")
    where = f"RFC {rfc} §{section}" if colon else f"§{section}"
    said, answered = case.outcome or "waits", theirs or "waits"
    ours = said if said == answered else f"**{said}**"
    return f"| {where} | {case.rule} | `{shown(case.sent)}` | {ours} | {answered} |"


def page_table() -> str:
    """Make the page's table, with what a plain site does now."""
    head = f"| section | sentence | sent | this server | plain Twisted {VERSION} |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(f"{row(case, plain(case.sent))}\n" for case in CASES)


def write_page() -> None:
    """Write the table into the page."""
    head, _, _ = PAGE.read_text().partition("| section |")
    PAGE.write_text(head + page_table())


class SentencesTests(SynchronousTestCase):
    """The table of the page."""

    def setUp(self) -> None:
        self.server = MemoryServer({"disable_token_authorization": True}, models={"m": {}})
        self.addCleanup(self.server.close)
        self.site = self.server.server.site_of(Role.INFERENCE)

    def ours(self, sent: bytes) -> str:
        return exchange(self.site.buildProtocol, self.server.advance, sent)

    def test_each(self) -> None:
        """Each sentence is kept."""
        wrong = [(case, found) for case in CASES if (found := self.ours(case.sent)) != case.outcome]
        self.assertEqual(wrong, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_page(self) -> None:
        """The page has the same table (``python -m tests.web.http.test_rfc9112`` writes it)."""
        page = PAGE.read_text()
        if f"plain Twisted {VERSION} |" in page:
            self.assertIn(page_table(), page)
        else:
            # Another Twisted may differ in the last column, and in nothing else.
            [_head, _line, *rows] = page[page.index("| section |") :].splitlines()
            self.assertEqual(
                [each.replace("**", "").split(" | ")[:4] for each in rows],
                [row(case, case.outcome).split(" | ")[:4] for case in CASES],
            )


_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+ (HTTP/1\.[01])")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:;[\t -~\x80-\xff]*)?")


def seen(sent: bytes) -> int:
    """Count the requests that a strict parser, which knows nothing of the server's, reads before the first flaw."""
    count = 0
    while True:
        head, end, sent = sent.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        start = _LINE.fullmatch(lines[0])
        fields = [_FIELD.fullmatch(line) for line in lines[1:]]
        if not end or start is None or None in fields:
            return count
        values: dict[bytes, list[bytes]] = {}
        for field in fields:
            values.setdefault(field[1].lower(), []).append(field[2])  # type: ignore[index]
        lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
        if values.get(b"host") != [b"h"] or len(lengths) + len(codings) > 1:
            return count
        if codings:
            rest = _after_chunks(sent)
            if codings[0].lower() != b"chunked" or start[1] != b"HTTP/1.1" or rest is None:
                return count
            sent = rest
        elif lengths:
            if not lengths[0].isdigit() or int(lengths[0]) > len(sent):
                return count
            sent = sent[int(lengths[0]) :]
        count += 1
        if start[1] == b"HTTP/1.0":
            return count


def _after_chunks(sent: bytes) -> bytes | None:
    """Return what follows a chunked body, ``None`` if it does not end."""
    while True:
        line, end, sent = sent.partition(b"\r\n")
        size = _SIZE.fullmatch(line)
        if not end or size is None:
            return None
        if not int(size[1], 16):
            break
        chunk = int(size[1], 16)
        if sent[chunk : chunk + 2] != b"\r\n":
            return None
        sent = sent[chunk + 2 :]
    while True:
        line, end, sent = sent.partition(b"\r\n")
        if not end or not (line == b"" or _FIELD.fullmatch(line)):
            return None
        if not line:
            return sent


VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0")

_SMUGGLED = get()

FIELDS = st.tuples(
    st.sampled_from([b"", b"", b"", b"", b" ", b"\t", b"\n", b"X: y\n", b"\r"]),
    st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"content-length", b"TRANSFER-ENCODING", b"X"]),
    st.sampled_from([b": ", b": ", b": ", b":", b":\t", b" : ", b"\x00: ", b"\r: ", b":\x0b", b":\r\n ", b"_: "]),
    st.sampled_from(
        [
            *(b"0", b"5", b"%d" % len(_SMUGGLED), b"%d" % (2 * len(_SMUGGLED)), b"007", b""),
            *(b"+5", b"-5", b"5, 5", b"5_0", b"0x5"),
            *(b"chunked", b"chunked", b"Chunked", b"identity", b"gzip, chunked", b"chunked, identity", b"xchunked"),
        ]
    ),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b" \r\n", b"\n", b"\r\r\n", b"\x00\r\n", b"\r\n\r\n"]),
).map(b"".join)

BODIES = st.sampled_from(
    [
        b"hello",
        _SMUGGLED,
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"%x\r\n%s\r\n" % (len(_SMUGGLED), _SMUGGLED),
        b"0\r\nA: b\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\n\n",
        b"5\nhello\n",
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5;a=b\r\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"\r\n",
        b"\n",
    ]
)


class FramingTests(SynchronousTestCase):
    """However the headers that frame a body are mangled, no bytes of a body become a request."""

    def setUp(self) -> None:
        self.server = MemoryServer({"disable_token_authorization": True}, models={"m": {}})
        self.addCleanup(self.server.close)
        self.site = self.server.server.site_of(Role.INFERENCE)

    def served(self, sent: bytes) -> int:
        """Return how many requests the server takes for requests and answers."""
        return exchange(self.site.buildProtocol, self.server.advance, sent).count("200")

    @given(st.lists(FIELDS, max_size=3), st.lists(BODIES, max_size=3), st.sampled_from(VERSIONS))
    def test_never_more(self, fields: list[bytes], bodies: list[bytes], version: bytes) -> None:
        """As many requests are served as a strict parser sees before the first flaw."""
        sent = b"POST /ping %s\r\nHost: h\r\n%s\r\n%s" % (version, b"".join(fields), b"".join(bodies))
        sent += get() * 2
        self.assertEqual(self.served(sent), seen(sent), sent)

    @given(st.lists(FIELDS, min_size=1, max_size=3), st.lists(st.integers(1, 40), max_size=8))
    def test_any_cutting(self, fields: list[bytes], sizes: list[int]) -> None:
        """How the bytes are cut on their way makes no difference."""
        sent = b"POST /ping HTTP/1.1\r\nHost: h\r\n%s\r\n%s" % (b"".join(fields), get() * 2)
        connection = self.server.connect()
        rest = sent
        for size in sizes:
            connection.send(rest[:size])
            rest = rest[size:]
        connection.send(rest)
        self.assertEqual(connection.received.count(b"HTTP/1.1 200 "), self.served(sent), sent)
        connection.leave()


if __name__ == "__main__":
    write_page()
