# SPDX-License-Identifier: Apache-2.0
"""
Tests for named keys of servers that are real processes.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration


def ask(server: Server, role: str, method: str, path: str, key: str, body: Any = None) -> tuple[int, Any]:
    """Send a request; return status and JSON."""
    data = None if body is None else json.dumps(body).encode()
    url = f"http://127.0.0.1:{server.ports[role]}{path}"
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {key}"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def test_shared_store(make_server: MakeServer, tmp_path: Path) -> None:
    """
    Two servers on one store make keys at once and lose none; what one makes or revokes counts at the other within
    about a second, a broken file changes nothing, and no secret is in any file.
    """
    store = tmp_path / "keys.json"
    one, two = (make_server(token_store=store) for _ in range(2))
    for server in (one, two):
        server.start()
    api = {id(server): server.keys()["API"] for server in (one, two)}

    def create(server: Server, name: str) -> str:
        status, made = ask(
            server, "management", "POST", "/keys", api[id(server)], {"name": name, "scopes": ["inference"]}
        )
        assert status == 201, made
        secret: str = made["key"]
        return secret

    secrets = {f"{name}{number}": create(server, f"{name}{number}")
               for number in range(5) for name, server in (("one", one), ("two", two))}  # fmt: skip
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert [key["name"] for key in json.loads(store.read_bytes())["keys"]] == list(secrets)

    def ping(server: Server, key: str) -> int:
        return ask(server, "inference", "GET", "/ping", key)[0]

    def all_count() -> bool:
        return all(ping(server, key) == 200 for server in (one, two) for key in secrets.values())

    one.until(all_count, "all keys to count")
    assert ask(two, "management", "DELETE", "/keys/one0", api[id(two)])[0] == 200
    assert ping(two, secrets["one0"]) == 400
    one.until(lambda: ping(one, secrets["one0"]) == 400, "the revoked key to be refused")

    good = store.read_bytes()
    store.write_bytes(good[:100])
    os.kill(one.pid, signal.SIGHUP)
    one.until(lambda: "The named keys stay as they were" in one.log(), "the line about the file")
    assert ping(one, secrets["two1"]) == 200
    store.write_bytes(good)
    one.until(lambda: "The file of named keys can be used again" in one.log(), "the line about the mended file")
    for server in (one, two):
        server.stop()
        for path in [path for path in server.cwd.rglob("*") if path.is_file()]:
            content = path.read_bytes()
            assert not [name for name, secret in secrets.items() if secret.encode() in content], path
