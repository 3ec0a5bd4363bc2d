# SPDX-License-Identifier: Apache-2.0
"""The installed command, started again with its own snapshots."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import COMMAND
from twisted_serve.config.properties import parse_properties

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration


def start(server: Server, *words: str) -> Server:
    """Start a server without ``--ncs``."""
    return server.start(command=[str(COMMAND), "--foreground", "--model-store", str(server.store), *words])


def test_again(make_server: MakeServer) -> None:
    """A server has its models again; one whose archive has gone does not start; ``--ncs`` starts with nothing."""
    server = make_server()
    archive = server.add_archive("m")
    server.configure(token_expiration_min=90, keystore_pass="S3cret")
    start(server, "--models", archive, "--disable-token-auth")
    scaled = server.curl("management", "/models/m?min_worker=2&max_worker=2&synchronous=true", "-X", "PUT")
    assert scaled.status == 200
    assert server.stop() == 0
    files = sorted((server.cwd / "logs" / "config").iterdir())
    assert [file.name[18:] for file in files] == ["startup.cfg", "snapshot.cfg", "shutdown.cfg"]
    for file in files:
        assert b"S3cret" not in file.read_bytes()
        assert "disable_token" not in file.read_text()
    values = parse_properties(files[-1].read_bytes())
    assert values["token_expiration_min"] == "90"
    assert json.loads(values["model_snapshot"])["models"]["m"]["1.0"]["minWorkers"] == 2

    # Tokens are on again: that they were off is nothing to remember.
    start(server)
    [shown] = server.curl("management", "/models/m", key="management").json()
    assert (shown["minWorkers"], shown["loadedAtStartup"], len(shown["workers"])) == (2, True, 2)
    assert server.stop() == 0

    (server.store / archive).unlink()
    refused = server.run("--foreground", "--model-store", str(server.store))
    assert refused.returncode == 1
    assert "Model archive file for model :m, version :1.0 not found in model store" in refused.stderr
    server.assert_clean()

    server.start()
    assert server.curl("management", "/models", key="management").json() == {"models": []}
    assert server.stop() == 0
