# SPDX-License-Identifier: Apache-2.0
"""Compressed request bodies: inflated for every route within all limits, or refused."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.web.http.channel_case import ChannelTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import BadRequest, RequestTooLarge, ServeError, UnsupportedEncoding
from twisted_serve.testing.server import Answer, MemoryServer, Role
from twisted_serve.web.http.content_coding import MOST_AT_ONCE, codings_of, inflated

LIMIT = 100_000

CODINGS = st.lists(st.sampled_from([b"gzip", b"deflate"]), max_size=3)


def raw_deflate(data: bytes) -> bytes:
    """Compress as RFC 1951 has it, without a header."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def random_bytes(size: int) -> bytes:
    """Make bytes that cannot be compressed."""
    return random.Random(0).randbytes(size)


DEFLATE: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.compress, b"deflate": zlib.compress}


class InflatedTests(SynchronousTestCase):
    """Tests for `inflated` and `codings_of`."""

    @given(st.binary(max_size=2000), CODINGS)
    def test_round_trip(self, data: bytes, codings: list[bytes]) -> None:
        """What was compressed, once or more, comes out as it was."""
        body = data
        for coding in codings:
            body = DEFLATE[coding](body)
        self.assertEqual(inflated(body, codings_of([b", ".join(codings)]), LIMIT), data)

    @given(st.lists(st.binary(max_size=100), min_size=1, max_size=5))
    def test_members(self, pieces: list[bytes]) -> None:
        """Gzip members follow each other; deflate, with a header or without, is one stream."""
        self.assertEqual(inflated(b"".join(map(gzip.compress, pieces)), [b"gzip"], LIMIT), b"".join(pieces))
        self.assertEqual(inflated(raw_deflate(b"a" + pieces[0]), [b"deflate"], LIMIT), b"a" + pieces[0])

    @given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate"]), st.data())
    def test_damaged(self, data: bytes, coding: bytes, draw: st.DataObject) -> None:
        """What breaks off, or has something behind it, is refused; other damage is found, or is another body."""
        whole = DEFLATE[coding](data)
        cut = draw.draw(st.integers(1, len(whole) - 1))
        self.assertRaises(BadRequest, inflated, whole[:cut], [coding], LIMIT)
        self.assertRaises(BadRequest, inflated, whole + b"x", [coding], LIMIT)
        damaged = bytearray(whole)
        damaged[draw.draw(st.integers(0, len(whole) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
        with contextlib.suppress(BadRequest, RequestTooLarge):
            self.assertLessEqual(len(inflated(bytes(damaged), [coding], LIMIT)), LIMIT)

    @given(st.binary(min_size=1, max_size=200), st.sampled_from([b"gzip", b"deflate"]))
    def test_any_bytes(self, body: bytes, coding: bytes) -> None:
        """Any bytes are inflated or refused, and nothing else."""
        with contextlib.suppress(BadRequest, RequestTooLarge):
            self.assertLessEqual(len(inflated(body, [coding], LIMIT)), LIMIT)

    @given(st.integers(0, 50), st.sampled_from([b"gzip", b"deflate"]))
    def test_limit(self, limit: int, coding: bytes) -> None:
        """As many bytes as the limit pass, one more does not."""
        self.assertEqual(inflated(DEFLATE[coding](b"a" * limit), [coding], limit), b"a" * limit)
        self.assertRaises(RequestTooLarge, inflated, DEFLATE[coding](b"a" * (limit + 1)), [coding], limit)

    def test_bombs(self) -> None:
        """A bomb, one in another, and many members are refused, in bounded time and memory."""
        bomb = gzip.compress(b"\0" * (64 << 20))
        limit = 1 << 20
        for body, codings in (
            (bomb, [b"gzip"]),
            (gzip.compress(bomb), [b"gzip", b"gzip"]),
            (gzip.compress(b"") * 300_000, [b"gzip"]),
            (gzip.compress(b"a") * 300_000, [b"gzip"]),
        ):
            tracemalloc.start()
            began = time.process_time()
            try:
                self.assertRaises((BadRequest, RequestTooLarge), inflated, body, codings, limit)
                _now, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertLess(time.process_time() - began, 1)
            self.assertLess(peak, 4 * limit)

    def test_at_once(self) -> None:
        """What is inflated without a thread takes no longer than a turn of the reactor may."""
        most = b"\0" * (MOST_AT_ONCE * 1100)
        body = zlib.compress(most, 9)[:MOST_AT_ONCE]
        best = 1.0
        for _ in range(5):
            began = time.process_time()
            self.assertRaises(ServeError, inflated, body, [b"deflate"], len(most))
            best = min(best, time.process_time() - began)
        self.assertLess(best, 0.05)

    def test_codings(self) -> None:
        """Names are read in any case and from any number of headers; ``identity`` is none; others are refused."""
        for values, codings in (
            ([], ()),
            ([b"identity"], ()),
            ([b""], ()),
            ([b"GZip"], (b"gzip",)),
            ([b"x-gzip"], (b"gzip",)),
            ([b"gzip , deflate"], (b"gzip", b"deflate")),
            ([b"gzip", b"identity,deflate"], (b"gzip", b"deflate")),
        ):
            self.assertEqual(codings_of(values), codings)
        for value in (b"br", b"zstd", b"compress", b"gzip, br", b"gzip;q=1", b"gzip gzip", b"gzip, gzip, gzip, gzip"):
            self.assertRaises(UnsupportedEncoding, codings_of, [value])


class RouteTests(ChannelTestCase):
    """Tests for compressed bodies on routes."""

    options = {"max_request_size": 50_000}

    def predict_coded(self, coding: str, body: bytes, path: str = "/predictions/m", **headers: str) -> Answer:
        sent = {"Content-Encoding": coding, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.server.request("POST", path, self.server.key(TokenKind.INFERENCE), sent, body)

    def test_every_route(self) -> None:
        """A handler, and every other route, sees what was compressed, and no header that says it still is."""
        text = b'{"inputs": []}'
        for coding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)):
            for path in ("/predictions/m", "/v1/models/m:predict", "/v2/models/m/infer", "/models/m/invoke"):
                answer = self.predict_coded(coding, compress(text), path, Content_Type="application/json")
                self.assertEqual((answer.status, answer.body), (200, text), path)
                [*_, [job]] = self.server.provider.workers[0].batches
                seen = {name.lower(): value for name, value in job.headers.items()}
                self.assertNotIn("content-encoding", seen)
                self.assertEqual(seen["content-length"], str(len(text)))
                self.assertFalse(answer.headers.get("content-encoding"))
        management = self.server.key(TokenKind.MANAGEMENT)
        self.server.add_model("n", {})
        body = gzip.compress(json.dumps({"url": "n"}).encode())
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        self.assertEqual(self.server.request("POST", "/models", management, headers, body).status, 200)

    def test_refused(self) -> None:
        """Others are 415 with what is supported; what is not what it says is 400; what is too large 413."""
        for coding, body, status, kind in (
            ("br", b"x", 415, "UnsupportedMediaTypeException"),
            ("gzip, br", b"x", 415, "UnsupportedMediaTypeException"),
            ("gzip", b"x", 400, "BadRequestException"),
            ("gzip", gzip.compress(b"x")[:-1], 400, "BadRequestException"),
            ("gzip", gzip.compress(b"\0" * 50_001), 413, "RequestTooLargeException"),
            ("gzip, gzip", gzip.compress(gzip.compress(b"\0" * 10_000_000)), 413, "RequestTooLargeException"),
        ):
            answer = self.predict_coded(coding, body)
            self.assertEqual((answer.status, answer.json["type"]), (status, kind), coding)
            self.assertEqual(answer.headers.get("accept-encoding"), "gzip, deflate" if status == 415 else None)
        self.assertIn("max_request_size, which is 50000 bytes", answer.json["message"])
        self.assertEqual(self.server.provider.workers[0].batches, [])

    def test_refused_early(self) -> None:
        """An unknown coding is refused before the body is read, but after the key."""
        head = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\n%sContent-Encoding: br\r\nContent-Length: 9\r\n\r\n"
        self.connection.send(head % self.bearer())
        self.assertEqual(self.statuses(), [415])
        other = self.server.connect()
        other.send(head % b"")
        self.assertEqual(self.statuses(other), [400])

    def test_without_a_body(self) -> None:
        """Nothing is nothing in any coding."""
        for coding in ("gzip", "br"):
            self.assertEqual(self.predict_coded(coding, b"").status, 200)

    def test_identity(self) -> None:
        """``identity`` changes nothing."""
        self.assertEqual(self.predict_coded("identity", b"x").body, b"x")

    def test_response_compression(self) -> None:
        """A client that would take compressed answers gets them plain."""
        answer = self.server.request(
            "POST", "/predictions/m", self.server.key(TokenKind.INFERENCE), {"Accept-Encoding": "gzip, deflate"}, b"x"
        )
        # The client's library puts an empty one there.
        self.assertEqual((answer.body, answer.headers.get("content-encoding", "")), (b"x", ""))

    def test_pipelined(self) -> None:
        """Requests behind a compressed one keep their order."""
        body = gzip.compress(b"first")
        self.connection.send(self.predict(body, b"Content-Encoding: gzip\r\n") + self.predict(b"second"))
        self.assertEqual(self.statuses(), [200, 200])
        self.assertLess(self.connection.received.index(b"first"), self.connection.received.index(b"second"))


class ThreadTests(SynchronousTestCase):
    """Tests for large bodies, which are inflated in a thread."""

    def setUp(self) -> None:
        self.server = MemoryServer(models={"m": {}})
        self.addCleanup(self.server.close)
        self.site: Any = self.server.server.site_of(Role.INFERENCE)
        self.work: list[tuple[Callable[..., Any], tuple[Any, ...], Deferred[Any]]] = []
        self.site.defer_to_thread = self.defer

    def defer(self, work: Callable[..., Any], *args: object) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.work.append((work, args, done))
        return done

    def send(self, body: bytes) -> Any:
        connection = self.server.connect()
        key = self.server.key(TokenKind.INFERENCE)
        head = f"POST /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\nContent-Encoding: gzip\r\n"
        connection.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return connection

    def test_in_a_thread(self) -> None:
        """A large body is inflated elsewhere, and answered when it is."""
        data = random_bytes(3 * MOST_AT_ONCE)
        connection = self.send(gzip.compress(data))
        self.assertEqual(connection.received, b"")
        [(work, args, done)] = self.work
        done.callback(work(*args))
        self.assertTrue(connection.received.endswith(data))

    def test_gone(self) -> None:
        """A client that leaves meanwhile has its work dropped, and no worker sees it."""
        connection = self.send(gzip.compress(random_bytes(3 * MOST_AT_ONCE)))
        connection.leave()
        [(work, args, done)] = self.work
        done.callback(work(*args))
        self.assertEqual(self.server.provider.workers[0].batches, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_defect(self) -> None:
        """If the work fails as it should not, the client gets 500, and the log says what happened."""
        connection = self.send(gzip.compress(random_bytes(3 * MOST_AT_ONCE)))
        self.work[0][2].errback(MemoryError())
        self.assertTrue(connection.received.startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
