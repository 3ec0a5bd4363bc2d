# SPDX-License-Identifier: Apache-2.0
"""
Tests for TLS with clients that are real: which ciphers are spoken, and what becomes of files that block.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from tests.integration.conftest import LONG, MakeServer, Server
from tests.listening.test_tls import identity

pytestmark = pytest.mark.integration


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """Start a server with a TLS listener for predictions."""
    server = make_server()
    shown = identity("localhost")
    (server.cwd / "tls.crt").write_bytes(shown.certificate_pem)
    (server.cwd / "tls.key").write_bytes(shown.key_pem())
    (server.cwd / "tls.key").chmod(0o644)
    server.configure(inference_address="https://127.0.0.1:0", certificate_file="tls.crt", private_key_file="tls.key")
    server.start()
    return server


def port_of(server: Server) -> int:
    [line] = [line for line in server.log().splitlines() if "Inference API bind to" in line]
    return int(line.rpartition(":")[2])


def agreed(server: Server, *options: str) -> str | None:
    """Return the cipher that ``openssl s_client`` gets with these options; ``None`` if it is refused."""
    client = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port_of(server)}", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    found = [line.partition("Cipher is ")[2].strip() for line in client.stdout.splitlines() if "Cipher is " in line]
    return found[0] if client.returncode == 0 and found and "NONE" not in found[0] else None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_ciphers(server: Server) -> None:
    """TLS 1.3, and 1.2 with forward secrecy and authenticated encryption, are spoken; nothing else is."""
    assert agreed(server, "-tls1_3") is not None
    assert agreed(server, "-tls1_2") in {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"}
    for cipher in ("ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "AES128-SHA", "AES256-GCM-SHA384"):
        assert agreed(server, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0") is None, cipher
    assert agreed(server, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") is None


def test_files_that_block(server: Server) -> None:
    """A key that all may read is warned about; a pipe in the place of a file is refused, and holds nothing up."""
    key = server.cwd / "tls.key"
    assert "is open to every user of this machine" in server.log()
    key.unlink()
    os.mkfifo(key)
    assert server.front is not None
    server.front.send_signal(signal.SIGHUP)
    server.until(lambda: "The certificate is not renewed" in server.log(), "the refusal")
    assert "Not a regular file" in server.log()
    assert server.curl("management", "/livez").status == 200
    assert agreed(server, "-tls1_3") is not None
    assert server.stop() == 0
