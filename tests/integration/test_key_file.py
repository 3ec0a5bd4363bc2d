# SPDX-License-Identifier: Apache-2.0
"""
Tests for the key file of servers that are real processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
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


# So is this, of a disk that takes as long as a file is missing.
HANGING_DISK = """
import os, time
real = os.fsync

def hanging(descriptor):
    while not os.path.exists(os.environ["DISK"]):
        time.sleep(0.02)
    real(descriptor)

os.fsync = hanging
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


def test_slow_rotation(make_server: MakeServer, tmp_path: Path) -> None:
    """While a key is being written to a slow disk others are served; the client gets its key; a stop leaves no file."""
    server = make_server()
    (tmp_path / "sitecustomize.py").write_text(HANGING_DISK)
    disk = tmp_path / "disk"
    disk.touch()
    server.environ |= {"PYTHONPATH": str(tmp_path), "DISK": str(disk)}
    server.start()
    keys = server.keys()
    url = f"http://127.0.0.1:{server.ports['management']}/token?type=inference"
    head = f"Authorization: Bearer {keys['API']}"

    def rotate() -> subprocess.Popen[bytes]:
        words = ["curl", "-sS", "--noproxy", "*", "--max-time", str(LONG), "-X", "POST", "-H", head, url]
        return subprocess.Popen(words, stdout=subprocess.PIPE)

    def begun() -> bool:
        return len(list(server.cwd.glob(".key_file.json.*"))) > 0

    disk.unlink()
    rotations = [rotate(), rotate()]
    server.until(begun, "a replacement to begin")
    for _ in range(6):
        assert server.curl("inference", "/livez").status == 200
    assert [rotation.poll() for rotation in rotations] == [None, None]
    disk.touch()
    told = [json.loads(rotation.communicate(timeout=LONG)[0])["key"] for rotation in rotations]
    server.key_watch.note()
    assert len({keys["inference"], *told}) == 3
    assert server.keys()["inference"] in told
    assert server.curl("inference", "/ping", key="inference").status == 200
    disk.unlink()
    last = rotate()
    server.until(begun, "a replacement to begin")

    def closed() -> bool:
        with suppress(ConnectionRefusedError), server.connect():
            return False
        return True

    assert server.front is not None
    server.front.terminate()
    server.until(closed, "the server to begin to stop")
    disk.touch()
    assert server.front.wait(LONG) == 0
    server.assert_no_key()
    last.communicate(timeout=LONG)
    assert list(server.cwd.glob("*key_file*")) == []
    server.assert_clean()


def test_written_again(make_server: MakeServer) -> None:
    """SIGHUP writes a key file that was deleted again, with the keys that live and for its owner alone."""
    server = make_server().start()
    before = server.key_file.read_bytes()
    server.key_file.unlink()
    assert server.front is not None
    server.front.send_signal(signal.SIGHUP)
    server.until(server.key_file.exists, "the key file")
    assert server.key_file.read_bytes() == before
    assert server.key_file.stat().st_mode & 0o777 == 0o600
    assert server.curl("inference", "/ping", key="inference").status == 200
    assert server.stop() == 0
    server.assert_clean()
