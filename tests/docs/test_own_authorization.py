# SPDX-License-Identifier: Apache-2.0
"""Tests for what ``docs/embedding.md`` says on an application's own authorization, and on events."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from base64 import b64encode
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
from twisted.internet.testing import MemoryReactorClock

from tests.ports import free_ports
from twisted_serve.testing.server import MemoryServer

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks

PROGRAM = Path(__file__).resolve().parents[2] / "docs" / "examples" / "htpasswd.py"


def test_friends(read_blocks: ReadBlocks) -> None:
    """The page's authorizer does what its docstring says."""
    [block] = [each.text for each in read_blocks("embedding.md", "python") if "class Friends" in each.text]
    names: dict[str, Any] = {"reactor": MemoryReactorClock()}
    exec(block, names)
    friend = {"Authorization": "Friend of-a-friend"}
    with MemoryServer(models={"m": {}}, dependencies={"authorizer": names["dependencies"].authorizer}) as server:
        statuses = [
            server.request(method, path, headers=headers, body=body).status
            for method, path, headers, body in (
                ("POST", "/predictions/m", friend, b"1"),
                ("GET", "/models", friend, b""),
                ("POST", "/predictions/m", {"Authorization": "Friend x"}, b"1"),
                ("GET", "/livez", {}, b""),
            )
        ]
    assert statuses == [200, 403, 401, 200]


def test_portal(read_blocks: ReadBlocks) -> None:
    """Alice may predict, and Bob may manage as well."""
    [block] = [each.text for each in read_blocks("embedding.md", "python") if "PortalAuthorizer(" in each.text]
    names: dict[str, Any] = {}
    exec(block, names)
    with MemoryServer(models={"m": {}}, dependencies={"authorizer": names["dependencies"].authorizer}) as server:
        statuses = [
            server.request(method, path, headers={"Authorization": b"Basic " + b64encode(user)}, body=b"1").status
            for user in (b"alice:a1", b"bob:b2", b"alice:b2")
            for method, path in (("POST", "/predictions/m"), ("GET", "/models"))
        ]
    assert statuses == [200, 403, 200, 200, 401, 401]


def test_events(read_blocks: ReadBlocks, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's observer and its callback tell of a model that is not there, and of keys that expire."""
    blocks = [each.text for each in read_blocks("embedding.md", "python")]
    [observer] = [text for text in blocks if "class Pager" in text]
    [ready] = [text for text in blocks if "outcome.failures" in text]
    names: dict[str, Any] = {}
    exec(observer, names)
    observers = names["dependencies"].observers
    with MemoryServer({"load_models": "cat=nothing.mar"}, dependencies={"observers": observers}) as server:
        exec(ready, {"models": server.server})
        server.advance(55 * 60)
        key_id = server.keys.management.public_id
    assert names["pager"].messages[0].startswith("cat cannot be loaded: ")
    assert names["pager"].messages[1] == f"the management key {key_id} expires in 300 s"
    assert capsys.readouterr().out.startswith("cat ")


def test_lines() -> None:
    """The example's checker names the line that is wrong, and not its content."""
    checker = runpy.run_path(str(PROGRAM))["HtpasswdChecker"]
    good = b"alice:" + bcrypt.hashpw(b"x", bcrypt.gensalt(4)).replace(b"$2b$", b"$2y$")
    checker([b"# users", b"", good, b""])
    for wrong in (b"alice", b":" + good[6:], b"alice:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=", good[:-1], b"alice:x"):
        with pytest.raises(ValueError, match=r"^line 2 is not a user with a bcrypt hash, as htpasswd -B makes it$"):
            checker([good, wrong])


@pytest.mark.integration
def test_htpasswd(model_store: Path) -> None:
    """
    The example with users of an htpasswd file, as it stands.

    Users predict, a manager manages; others are refused; no password is in the log; there is no key file.
    """
    here = model_store.parent
    [port] = free_ports(1)
    users = {name: bcrypt.hashpw(f"{name}'s".encode(), bcrypt.gensalt(8)) for name in ("alice", "bob")}
    (here / "users").write_bytes(b"".join(name.encode() + b":" + hashed + b"\n" for name, hashed in users.items()))
    with (here / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(model_store), "users", str(port), "bob"],
            cwd=here,
            env={**os.environ, "TMPDIR": str(here)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def ask(path: str, name: str = "", password: str = "", body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"} if name else {}
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except ConnectionRefusedError:
            return 0, b""
        finally:
            connection.close()

    try:
        deadline = time.monotonic() + 60
        while ask("/readyz")[0] != 200 and time.monotonic() < deadline:
            assert process.poll() is None, (here / "log").read_text()
            time.sleep(0.05)
        assert ask("/predictions/greet", "alice", "alice's", b"Ada") == (200, b"Hello, Ada")
        assert ask("/models", "alice", "alice's")[0] == 403
        assert ask("/models", "bob", "bob's")[0] == 200
        for name, password in (("alice", "bob's"), ("mallory", ""), ("alice", "alice's" + "x" * 100), ("", "")):
            assert ask("/predictions/greet", name, password, b"Ada")[0] == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    text = (here / "log").read_text()
    assert "Traceback" not in text
    assert "principal=alice" in text
    assert "alice's" not in text
    assert b64encode(b"alice:alice's").decode() not in text
    assert sorted(path.name for path in here.iterdir()) == ["log", "model_store", "users"]
