# SPDX-License-Identifier: Apache-2.0
"""What a server leaves that is killed, and what the next one makes of it."""

from __future__ import annotations

import signal

import pytest

from tests.integration.conftest import MakeServer, Server
from twisted_serve.archives.orphans import PREFIX

pytestmark = pytest.mark.integration


def test_killed(make_server: MakeServer) -> None:
    """The next start removes the directory and the unfinished downloads of a killed server, but of no living one."""
    killed, living = make_server(), make_server()
    archive = killed.add_archive("echo")
    living.add_archive("echo")
    # Both have one temporary directory, and keys, ports and pid files of their own.
    living.configure(temp_directory=killed.temp)
    living.start("--models", f"echo={archive}")
    [alive] = killed.work_dirs()
    killed.start("--models", f"echo={archive}")
    [dead] = set(killed.work_dirs()) - {alive}
    assert list(dead.glob("models/*/handler.py"))
    partial = killed.store / f".{'0' * 32}.part"
    partial.touch()
    old = killed.temp / f"{PREFIX}of-an-older-version"
    old.mkdir()

    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    assert dead.exists()
    killed.start("--models", f"echo={archive}")
    killed.until(lambda: not dead.exists() and not partial.exists(), "the next server to tidy up")
    assert "Removed what a killed server has left" in killed.log()
    assert old.exists()
    assert list(alive.glob("models/*/handler.py"))
    for server in (killed, living):
        assert server.predict("echo", b"hello").body == b"hello"
        assert server.stop() == 0
    assert killed.work_dirs() == [old]


def test_together(make_server: MakeServer) -> None:
    """Servers that start at the same time with one temporary directory all keep theirs."""
    servers: list[Server] = [make_server() for _ in range(3)]
    for server in servers:
        server.configure(temp_directory=servers[0].temp)
        archive = server.add_archive("echo")
        server.start("--models", f"echo={archive}", wait=False)
    for server in servers:
        server.wait_until_started()
    assert len(servers[0].work_dirs()) == len(servers)
    for server in servers:
        assert server.predict("echo", b"hello").body == b"hello"
        assert server.stop() == 0
    servers[0].assert_clean()
