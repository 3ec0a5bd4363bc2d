# SPDX-License-Identifier: Apache-2.0
"""
Tests for the key file of servers that are real processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import LONG, MakeServer

pytestmark = pytest.mark.integration

# Python imports this at its start: a disk so slow that servers which start together write their key files together.
SLOW_DISK = """
import os, time
real = os.fsync

def slow(descriptor):
    time.sleep(1.5)
    real(descriptor)

os.fsync = slow
"""


def test_two_servers_at_once(make_server: MakeServer, tmp_path: Path) -> None:
    """Of two servers that start at once in one directory, one has the key file, and the other says so and ends."""
    server = make_server()
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    starts = []
    for number in (1, 2):
        temp = tmp_path / f"temp{number}"
        temp.mkdir()
        starts.append(
            subprocess.Popen(
                server.command("--start", "--foreground"),
                cwd=server.cwd,
                env={**server.environ, "TMPDIR": str(temp), "PYTHONPATH": str(tmp_path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        server.until(lambda: any(each.poll() is not None for each in starts), "one of them to end")
        [loser] = [each for each in starts if each.poll() is not None]
        [winner] = [each for each in starts if each is not loser]
        said, _ = loser.communicate(timeout=LONG)
        assert loser.returncode == 1
        assert "the key file belongs to another running server" in said
        keys = json.loads((server.cwd / "key_file.json").read_bytes())
        assert set(keys) == {"management", "inference", "API"}
        assert [name for name in os.listdir(server.cwd) if "key_file" in name] == ["key_file.json"]
        winner.send_signal(signal.SIGTERM)
        winner.communicate(timeout=LONG)
        assert winner.returncode == 0
        assert [name for name in os.listdir(server.cwd) if "key_file" in name] == []
    finally:
        for each in starts:
            if each.poll() is None:
                each.kill()
            each.communicate(timeout=LONG)
