# SPDX-License-Identifier: Apache-2.0
"""What the image runs, run here without Docker: its command line, its configuration and its health check."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deploy.test_manifests import DEPLOY, instructions
from tests.integration.conftest import COMMAND, LONG, make_server

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

__all__ = ["make_server"]

pytestmark = pytest.mark.integration

ECHO = "def handle(data, context):\n    return None if data is None else [row['body'] for row in data]\n"


def command_line(server: Server, configuration: Path) -> list[str]:
    """Return the image's command line, with the test's places instead of the image's."""
    said = dict(instructions())
    words = [*json.loads(said["ENTRYPOINT"]), *json.loads(said["CMD"])]
    places = {
        "twisted-serve": str(COMMAND),
        "/models": str(server.store),
        "/etc/twisted-serve/config.properties": str(configuration),
    }
    assert set(places) <= set(words)
    return [places.get(word, word) for word in words]


def healthy(server: Server) -> bool:
    """Ask as the image's health check does, on the test's port."""
    command = json.loads(dict(instructions())["HEALTHCHECK"].partition(" CMD ")[2])
    program = command[-1].replace(":8080/", f":{server.ports['inference']}/")
    assert program != command[-1]
    assert command[:2] == ["python", "-c"]
    asked = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, timeout=LONG)
    return asked.returncode == 0


def test_command(make_server: MakeServer) -> None:
    """It serves all models of the store, is healthy, and ends well by the image's stop signal."""
    server = make_server({"m": ECHO})
    text = (DEPLOY / "config.properties").read_text()
    text, changed = re.subn(r"http://(0\.0\.0\.0|127\.0\.0\.1):\d+", "http://127.0.0.1:0", text)
    assert changed == 3
    text = text.replace("grpc_inference_address=0.0.0.0", "grpc_inference_address=127.0.0.1")
    text = text.replace("/run/twisted-serve/key_file.json", str(server.key_file))
    configuration = server.cwd.parent / "image.properties"
    configuration.write_text(text)
    server.start(command=command_line(server, configuration))
    assert healthy(server)
    assert server.curl("inference", "/readyz").status == 200
    assert server.curl("inference", "/predictions/m", key="inference", body=b"x").body == b"x"
    assert server.curl("inference", "/predictions/m", body=b"x").status == 400
    stop = signal.Signals[dict(instructions())["STOPSIGNAL"]]
    assert server.stop(stop) == 0
    assert not healthy(server)
    server.assert_clean()
