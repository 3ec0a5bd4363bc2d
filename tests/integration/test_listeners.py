# SPDX-License-Identifier: Apache-2.0
"""
Tests for the kinds of addresses: TLS, UNIX sockets, and addresses which several APIs share.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.ports import free_ports

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for loopback and its key, in the form which the predecessor's users have."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (directory / "key.pem").write_bytes(encoded)
    return directory / "cert.pem", directory / "key.pem"


def curl(*words: str) -> str:
    """Ask with ``curl``, and return the body."""
    done = subprocess.run(["curl", "-sS", "-m", "20", *words], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def bearer(server: Server, kind: str) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {server.keys()[kind]}"


def test_https_and_unix(make_server: MakeServer) -> None:
    """Inference over https, management on a UNIX socket: each does what it does over http."""
    server = make_server({"echo": "def handle(data, context):\n    return [b'hello'] if data else None\n"})
    certificate, key = make_certificate(server.cwd)
    path = server.cwd / "management.sock"
    # What a server that was killed leaves behind.
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server.configure(
        inference_address="https://127.0.0.1:0",
        management_address=f"unix:{path}",
        certificate_file=certificate,
        private_key_file=key,
    )
    server.start("--models", "echo=echo")
    found = re.search(r"Inference API bind to: (https://127\.0\.0\.1:\d+)$", server.log(), re.MULTILINE)
    assert found is not None
    trusted = ("--cacert", str(certificate))
    assert curl(*trusted, f"{found[1]}/predictions/echo", "-d", "x", *bearer(server, "inference")) == "hello"
    assert "InvalidKeyException" in curl(*trusted, f"{found[1]}/ping")
    with pytest.raises(subprocess.CalledProcessError):
        curl(*trusted, "--tls-max", "1.1", f"{found[1]}/livez")
    # A client that does not speak TLS is told so; nothing else is answered in the clear.
    assert "only accepts HTTPS" in curl(f"http{found[1].removeprefix('https')}/livez")
    # A new certificate is shown to new connections, without a restart.
    make_certificate(server.cwd)
    server.front.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    server.until(lambda: "The certificate was read again" in server.log(), "the certificate to be read")
    assert "Live" in curl("--cacert", str(certificate), f"{found[1]}/livez")
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    models = curl("--unix-socket", str(path), "http://h/models", *bearer(server, "management"))
    assert json.loads(models)["models"] == [{"modelName": "echo", "modelUrl": "echo"}]
    new = curl("--unix-socket", str(path), "http://h/token?type=inference", *bearer(server, "API"))
    assert json.loads(new)["key"] == server.keys()["inference"]
    assert server.stop() == 0
    assert not path.exists()
    server.assert_clean()


def test_one_address_for_all(make_server: MakeServer) -> None:
    """On one address each API is there, with its own key: versions, ``/token`` and metrics included."""
    [port] = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    server = make_server({"echo": "def handle(data, context):\n    return [b'hello'] if data else None\n"})
    server.configure(inference_address=address, management_address=address, metrics_address=address)
    server.start("--models", "echo=echo")
    assert curl(f"{address}/predictions/echo/1.0", "-d", "x", *bearer(server, "inference")) == "hello"
    assert '"modelVersion": "1.0"' in curl(f"{address}/models/echo/1.0", *bearer(server, "management"))
    assert '"key"' in curl(f"{address}/token?type=management", *bearer(server, "API"))
    assert "ts_answers_total" in curl(f"{address}/metrics")
    assert "InvalidKeyException" in curl(f"{address}/models/echo/1.0", *bearer(server, "inference"))
    assert server.stop() == 0


def test_endpoints(make_server: MakeServer) -> None:
    """Inference behind a proxy, the rest on a socket file: clients' addresses, modes and files are right."""
    server = make_server({"echo": "def handle(data, context):\n    return [b'hello'] if data else None\n"})
    path = server.cwd / "management.sock"
    socket_file = f"unix:{path}:mode=600"
    server.configure(
        inference_address="haproxy:tcp:0:interface=127.0.0.1",
        management_address=socket_file,
        metrics_address=socket_file,
    )
    server.start("--models", "echo=echo")
    assert server.front is not None
    server.front.kill()
    server.front.wait()
    # The socket and its lock are still there.
    assert path.exists()
    server.start("--models", "echo=echo")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "ts_answers_total" in curl("--unix-socket", str(path), "http://h/metrics")
    models = curl("--unix-socket", str(path), "http://h/models", *bearer(server, "management"))
    assert json.loads(models)["models"] == [{"modelName": "echo", "modelUrl": "echo"}]
    head = server.head("POST", "/predictions/echo", "Content-Length: 1", "Connection: close")
    for header, answer in ((b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 80\r\n", b"hello"), (b"", b"")):
        with server.connect() as client:
            client.sendall(header + head + b"x")
            said = b"".join(iter(lambda: client.recv(65536), b""))
        assert said.partition(b"\r\n\r\n")[2] == answer
    access = '/192.0.2.7:56324 "POST /predictions/echo HTTP/1.1" 200'
    server.until(lambda: access in server.log(), "the line of the access log")
    assert "Traceback" not in server.log()
    assert server.stop() == 0
    assert [each.name for each in server.cwd.glob("management.sock*")] == []
    # A start that fails names the setting and the value on one line, and leaves nothing behind.
    server.configure(inference_address=socket_file, metrics_address="tcp:eighty")
    server.start("--models", "echo=echo", wait=False)
    assert server.front.wait(60) == 1
    [line] = [line for line in server.log().splitlines() if line.startswith("Invalid configuration: ")]
    assert line == (
        "Invalid configuration: Invalid binding address: tcp:eighty: "
        "ValueError: invalid literal for int() with base 10: 'eighty' (metrics_address)"
    )
    assert list(server.cwd.glob("management.sock*")) == []
    server.assert_clean()
