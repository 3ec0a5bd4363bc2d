# SPDX-License-Identifier: Apache-2.0
"""
Generate requests that are usual but for a few parts, and what else clients and handlers do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.web.lane_world import CONNECTIONS

#: The name of a method of `World`, and its arguments.
Step: TypeAlias = "tuple[Any, ...]"


# What may stand in place of each part of a usual request. The first of each list is what the fast lane takes.
PARTS: dict[str, list[str]] = {
    "method": ["POST", "GET", "PUT", "HEAD", "OPTIONS", "DELETE", "post"],
    "target": [
        "/predictions/m",
        "/predictions/m/1.0",
        "/predictions/m/",
        "/predictions/m/9",
        "/predictions/x",
        "/predictions/m/1.0/more",
        "/predictions//m",
        "//predictions/m",
        "/predictions/%6d",
        "/predictions/m?x=1",
        "/predictions/..",
        "/predictions/./m",
        "/predictions",
        "/predictions/",
        "/predictions/m;x",
        "/predictions/m\t",
        "/predictions/m#f",
        "/predictions/M",
        "/Predictions/m",
        "/predictions/m/1.0//",
        "/explanations/m",
        "/ping",
        "/models",
        "http://h/predictions/m",
    ],
    "version": ["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1"],
    "host": ["Host: h", "Host: h:1", "Host:", "Host: a b", "Host: h\r\nhost: h", "No: host"],
    "key": [
        "Authorization: Bearer <INFERENCE>",
        "Authorization: Bearer <NAMED>",
        "Authorization: Bearer <OTHER>",
        "authorization: bearer <INFERENCE>",
        "Authorization:Bearer  <NAMED> ",
        "Authorization: Bearer <MANAGEMENT>",
        "Authorization: Bearer wrong",
        "Authorization: Bearer",
        "Authorization: Basic <INFERENCE>",
        "Authorization: Bearer <INFERENCE>\r\nauthorization: Bearer <INFERENCE>",
        "X: y",
    ],
    "length": ["{}", "0{}", "+{}", "{}0", "", "-1", "{0}, {0}", "1" * 19, "0x{}", "{}\r\nContent-Length: {}"],
    "more": [
        "Accept: */*",
        "Content-Type: application/json",
        "content-type: text/plain; charset=utf-8",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: multipart/form-data",
        "Connection: keep-alive",
        "connection: Keep-Alive",
        "Connection: close",
        "Connection: keep-alive, x",
        "X-Request-Id: my-id",
        "X-Request-Id: no id",
        "X-Request-Timeout-Ms: 20000",
        "X-Request-Timeout-Ms: never",
        "Expect: 100-continue",
        "Expect: x",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Content-Encoding: gzip",
        "Content-Encoding: identity",
        "Upgrade: h2c",
        "TE: trailers",
        "Cookie: a=b",
        "X-Ts-Key-Name: forged",
        "url_path: forged",
        "explain: True",
        "describe: 1",
        "X-Odd: \tv \t",
        "X-Odd:",
        "X-Odd: \x01",
        "X-Odd: ü",
        "X-Odd: a\nb",
        "X Odd: v",
        "x-odd : v",
        "x_odd: v",
        "!odd: v",
        " folded: v",
        "X-Long: " + "y" * 8200,
        "\r\n".join(f"n{number}: v" for number in range(70)),
        "no colon",
        ": no name",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
}
BODIES = [b"h", b"", b"1", b"{}", b"p", b"s", b"n", b"e", b"l", b"u", b"f", b"r", b"a=b&c=d", b"x" * 70000]


def rendered(parts: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request."""
    line = f"{parts['method']} {parts['target']} {parts['version']}"
    length = [f"Content-Length: {parts['length'].format(len(body), len(body))}"] if parts["length"] else []
    head = "\r\n".join([line, parts["host"], parts["key"], *length, parts["more"], "", ""])
    return head.encode("utf-8") + body


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Generate a request: usual but for a few parts, or a few bytes."""
    odd = draw(st.sets(st.sampled_from(sorted(PARTS)), max_size=3))
    parts = {name: draw(st.sampled_from(values)) if name in odd else values[0] for name, values in PARTS.items()}
    data = bytearray(rendered(parts, draw(st.sampled_from(BODIES))))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, min(len(data), 300) - 1))
        data[at : at + draw(st.integers(0, 1))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b" ", b"\x00", b"\xff", b":"])
        )
    return bytes(data)


@st.composite
def sends(draw: st.DrawFn) -> Step:
    """Generate what a client sends: usually one request in one read."""
    data = draw(requests())
    if draw(st.integers(0, 4)) == 0:
        data = draw(st.sampled_from([b"\r\n", b"\r\n\r\n", b""])) + data + draw(requests() | st.just(b""))
    cuts = draw(st.just([]) | st.lists(st.integers(1, 400), max_size=3))
    return ("send", draw(st.integers(0, CONNECTIONS - 1)), data, cuts)


def steps(times: Sequence[float] = (0.01, 1.0, 49.0, 51.0, 121.0, 3601.0)) -> SearchStrategy[Step]:
    """Generate steps, with these seconds between them."""
    numbers = st.integers(0, CONNECTIONS - 1)
    return (
        sends()
        | sends()
        | sends()
        | st.tuples(st.sampled_from(["leave", "stop_reading", "read_on"]), numbers)
        | st.tuples(st.sampled_from(["answer", "answer", "answer", "chunk", "kill", "finish_up", "revoke"]))
        | st.tuples(st.just("advance"), st.sampled_from(times))
    )


USUAL = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer <INFERENCE>\r\nContent-Length: 2\r\n\r\nhi"
NAMED = USUAL.replace(b"<INFERENCE>", b"<NAMED>")


def odd_in(name: str) -> list[Step]:
    """Return steps with requests that are usual but for one part, with each body, each after a usual one."""
    usual = {name: values[0] for name, values in PARTS.items()}
    sent: list[Step] = []
    for number, value in enumerate(PARTS[name]):
        for body in (BODIES[0], BODIES[1 + number % (len(BODIES) - 1)]):
            sent += [("send", 0, USUAL, []), ("send", 0, rendered({**usual, name: value}, body), []), ("leave", 0)]
    return sent
