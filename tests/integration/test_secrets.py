# SPDX-License-Identifier: Apache-2.0
"""Tests for where keys are: in the key file, and nowhere else, whatever clients and handlers do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Tells all it knows.
NOSY = """
import os, sys

def handle(data, context):
    if data is None:
        return None
    print("HEADERS", context.get_all_request_header(0))
    print("ENVIRON", dict(os.environ))
    print("ARGV", sys.argv, open("/proc/self/cmdline").read().split(chr(0)))
    print("BODY", data[0].get("body"), file=sys.stderr)
    sys.stdout.flush()
    if data[0].get("body"):
        raise ValueError(f"a handler's error with {data[0]['body']}")
    return [repr(context.get_all_request_header(0))]
"""

# Writes what it is sent where everybody can read it.
CARELESS = """
def handle(data, context):
    if data is None:
        return None
    with open("notes", "wb") as notes:
        notes.write(data[0]["body"])
    return ["noted"]
"""

DOORS = [
    ("inference", "/ping"),
    ("management", "/models"),
    ("management", "/token?type=inference"),
    ("metrics", "/metrics"),
]


def requests_with(key: str, opens: str) -> Iterator[str]:
    """Yield requests that have a key where it should not be, some with ``opens`` as their own, and none after them."""
    for method in ("GET", "POST", "PUT"):
        for path in (
            f"/{key}",
            f"//{key}/../{key}",
            f"/ping?token={key}",
            f"/predictions/nosy?Authorization=Bearer%20{key}",
            f"/predictions/{key}/{key}",
            f"/models/{key}?url={key}",
            f"/models?url=http://user:{key}@127.0.0.1:1/x.mar",
            f"/token?type={key}",
            f"/%2{key}",
            f"http://{key}@{key}/{key}",
        ):
            end = "Connection: close\r\nContent-Length: 0\r\n\r\n"
            yield f"{method} {path} HTTP/1.1\r\nHost: {key}\r\nAuthorization: Bearer {opens}\r\n{end}"
            yield f"{method} {path} HTTP/1.1\r\nHost: h\r\n{end}"
    yield f"{key} / HTTP/1.1\r\nConnection: close\r\n\r\n"
    yield f"GET /ping HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {key}\r\n\r\n"
    yield f"GET /ping HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key} {key}\r\n\r\n"
    yield f"GET /ping HTTP/1.1\r\nHost: h\r\n{key}\r\n\r\n"
    yield f"GET /{key} HTTP/{key}\r\n\r\n"
    yield f"POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: {key}\r\n\r\n"
    opened = f"Host: h\r\nAuthorization: Bearer {opens}\r\n"
    yield f"POST /ping HTTP/1.1\r\n{opened}Expect: {key}\r\nContent-Length: 1\r\n\r\n"


def try_everything(server: Server) -> None:
    """Use keys as they are meant to be used, and in every other place of a request."""
    keys = server.keys()
    for kind, key in keys.items():
        # A right key for each kind of path, right or wrong, but for what would replace it now.
        for role, path in DOORS:
            if not (kind == "API" and path.startswith("/token")):
                server.curl(role, path, bearer=key)
        for role, opens in (("inference", "inference"), ("management", "management"), ("metrics", "API")):
            for asked in requests_with(key, keys[opens]):
                with server.connect(role) as client, contextlib.suppress(OSError):
                    client.settimeout(1)
                    client.sendall(asked.encode())
                    while client.recv(65536):
                        pass
        server.predict("nosy", b"", "-H", f"X-Also: {key}", "-H", f"Proxy-Authorization: Bearer {key}")
        server.predict("nosy", f"the body has {key}".encode(), "-H", "Content-Type: application/octet-stream")
    answer = server.predict("nosy")
    assert answer.status == 200
    # A key is for the server, not for the model's code.
    assert b"uthorization" not in answer.body


def test_keys_are_nowhere(make_server: MakeServer) -> None:
    """Neither the output nor a process's command line or environment holds a key, through uses and rotations."""
    server = make_server({"nosy": NOSY})
    server.start("--enable-model-api", "--models", "nosy=nosy")
    seen = set(server.keys().values())
    try_everything(server)
    for kind in ("management", "inference"):
        assert server.curl("management", f"/token?type={kind}", key="API").status == 200
    seen |= set(server.keys().values())
    assert len(seen) == 5
    try_everything(server)

    pids = [server.pid, *server.workers(), *server.templates()]
    assert len(pids) == 4
    places = {
        f"{pid} {name}": Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in ("cmdline", "environ")
    }
    places["descriptions"] = b"".join(
        server.curl(role, path, *options, key=key).body
        for role, path, key, options in [
            ("inference", "/", "inference", ["-X", "OPTIONS"]),
            ("management", "/models/nosy", "management", []),
            ("metrics", "/metrics", None, []),
        ]
    )
    assert server.stop() == 0
    places["output"] = server.output.read_bytes()
    for mark in (b"HEADERS", b"ENVIRON", b"BODY", b"Refused", b"AUDIT", b"ACCESS_LOG", b"a handler's error with"):
        assert mark in places["output"]
    assert [(place, key) for place, content in places.items() for key in seen if key.encode() in content] == []
    # What was left out was marked, so it was there.
    assert places["output"].count(b"<redacted>") > 100


def test_key_that_is_being_replaced(make_server: MakeServer) -> None:
    """A key in the request that replaces it is kept from the log like any other."""
    server = make_server()
    server.start()
    old = server.keys()["management"]
    assert server.curl("management", f"/token?type=management&old={old}", key="API").status == 200
    assert server.stop() == 0
    assert old not in server.log()


def test_key_file_is_private(make_server: MakeServer) -> None:
    """No other file of the server's holds a key, and no worker inherits one that does."""
    server = make_server({"nosy": NOSY})
    server.start("--models", "nosy=nosy")
    assert server.curl("management", "/token?type=inference", key="API").status == 200
    keys = [key.encode() for key in server.keys().values()]
    files = [path for top in (server.cwd, server.temp, server.store) for path in top.rglob("*") if path.is_file()]
    assert [path for path in files if any(key in path.read_bytes() for key in keys)] == [server.key_file]
    (worker,) = server.workers()
    assert server.pid in [parent.pid for parent in psutil.Process(worker).parents()]
    for pid in (worker, *server.templates()):
        assert str(Path(f"/proc/{pid}/fd/0").readlink()) == "/dev/null"
        assert all("key_file" not in target for target in opened_by(pid))
        # Nor the sockets on which the server listens.
        assert psutil.Process(pid).net_connections("inet") == []
    # A worker has its own socket, and nothing of its siblings or its template.
    own = [target for target in opened_by(worker) if target.startswith("socket:")]
    assert len(own) == 1


def opened_by(pid: int) -> list[str]:
    """List what a process has open."""
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


def test_encoded_key(make_server: MakeServer) -> None:
    """A key whose characters are written as escapes in a URL is kept from the log, too."""
    server = make_server()
    server.start()
    key = server.keys()["management"]
    escaped = "".join(f"%{ord(character):02X}" for character in key)
    assert server.curl("management", f"/models/{escaped}", key="management").status == 404
    assert server.curl("management", f"/{key[:-1]}{escaped[-3:]}").status == 400
    assert server.stop() == 0
    assert key not in server.log()
    assert escaped not in server.log()
    assert f"{key[:-1]}{escaped[-3:]}" not in server.log()


def test_search_after_each_server(make_server: MakeServer) -> None:
    """A file with a key fails the test that made the server, and the failure names the file and not the key."""
    server = make_server({"careless": CARELESS})
    server.start("--models", "careless=careless")
    old = server.keys()["inference"]
    assert server.curl("management", "/token?type=inference", key="API").status == 200
    assert server.predict("careless", old.encode()).status == 200
    with pytest.raises(pytest.fail.Exception) as failed:
        server.stop()
    notes = server.store / "careless" / "notes"
    assert str(failed.value) == f"a key is in {notes}"
    server.key_watch.allow(notes, "the handler was to write it there")
