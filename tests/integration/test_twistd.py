# SPDX-License-Identifier: Apache-2.0
"""Tests for ``twistd twisted-serve``: the same server, run by Twisted's own commands."""

from __future__ import annotations

import os
import pwd
import signal
import site
import socket
import ssl
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ECHO, LONG
from tests.listening.test_tls import identity
from tests.plugins.test_discovery import SOURCE, distribute

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

TWISTD = str(Path(sys.executable).with_name("twistd"))
TWIST = str(Path(sys.executable).with_name("twist"))

# Prints what it should not: the key file, and an order to a terminal.
INDISCREET = """
import os, sys

def handle(data, context):
    if data is None:
        return None
    print("keys:", open("KEY_FILE").read().replace("\\n", " "))
    print("\\x1b[31mred", file=sys.stderr, flush=True)
    return [str([os.getuid(), os.getgid()])] * len(data)
"""


WHOSE = """
import os
from twisted.logger import Logger
Logger("plugin").info(f"plug-in run by {os.getuid()}, {os.geteuid()}")
"""


def service(server: Server, *words: str) -> list[str]:
    """Return the words of a command line that are ours."""
    return ["twisted-serve", "--ncs", "--model-store", str(server.store), *words]


def run(server: Server, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the server's place, to its end."""
    return subprocess.run(
        command, cwd=server.cwd, env=server.environ, capture_output=True, text=True, timeout=LONG, check=False
    )


def certificate(server: Server, name: str) -> bytes:
    """Write a certificate and its key where the server reads them, and return it as clients see it."""
    shown = identity(name)
    (server.cwd / "tls.crt").write_bytes(shown.certificate_pem)
    (server.cwd / "tls.key").write_bytes(shown.key_pem())
    (server.cwd / "tls.key").chmod(0o600)
    return ssl.PEM_cert_to_DER_cert(shown.certificate_pem.decode())


def shown_certificate(port: int) -> bytes | None:
    """Return the certificate that a listener shows."""
    context = ssl._create_unverified_context()
    connection = socket.create_connection(("127.0.0.1", port), timeout=LONG)
    with context.wrap_socket(connection) as secure:
        return secure.getpeercert(binary_form=True)


def test_daemon(make_server: MakeServer) -> None:
    """In the background, with its files where they are wanted, it logs as it should, and minds the signals."""
    server = make_server(metrics_address="https://127.0.0.1:0", certificate_file="tls.crt", private_key_file="tls.key")
    server.add_model("m", INDISCREET.replace("KEY_FILE", str(server.key_file)))
    before = certificate(server, "localhost")
    pid_file, old_log = server.cwd / "the.pid", server.output.with_name("output.1")
    words = ["--reactor=asyncio", "--pidfile", pid_file.name, "--logfile", str(server.output)]
    assert run(server, TWISTD, *words, *service(server, "--models", "m=m")).returncode == 0
    server.wait_until_started()
    front = int(pid_file.read_text())
    [port] = [int(line.rpartition(":")[2]) for line in server.log().splitlines() if "Metrics API bind to" in line]
    try:
        assert "AsyncioSelectorReactor" in server.log()
        # The output of handlers is labelled, and harmless.
        assert server.predict("m").status == 200
        server.until(lambda: "MODEL_LOG#warn" in server.log(), "what the handler prints")
        assert "[W-9000-m_1.0-stdout MODEL_LOG#info] keys: {" in server.log()
        assert r"[W-9000-m_1.0-stderr MODEL_LOG#warn] \x1b[31mred" in server.log()
        key = server.keys()["management"]
        assert server.curl("management", f"/models/{key}", key="management").status == 404
        server.until(lambda: '"GET /models/<redacted> HTTP/1.1" 404' in server.log(), "the line of the request")
        server.assert_no_key()
        # A second one in the same directory ends with a line, and takes nothing of the first one's away.
        second = run(server, TWISTD, "--nodaemon", "--pidfile=2.pid", *service(server))
        assert second.returncode == 1
        assert second.stderr.startswith("twistd twisted-serve: ")
        assert second.stderr.count("\n") == 1
        assert "Traceback" not in second.stdout
        assert not (server.cwd / "2.pid").exists()
        behind = run(server, TWISTD, "--pidfile=2.pid", "--logfile=2.log", *service(server))
        assert behind.returncode == 1
        assert "NotStarted" in behind.stderr
        assert "Traceback" not in (server.cwd / "2.log").read_text()
        assert not (server.cwd / "2.pid").exists()
        # --stop does not end it, and tells where it is.
        stop = run(server, str(Path(TWISTD).with_name("twisted-serve")), "--stop")
        assert (stop.returncode, stop.stdout) == (0, "TorchServe is not currently running.\n")
        assert stop.stderr.startswith(f"A server runs in process {front} (twistd), ")
        # SIGHUP: new certificates, and the key file again. SIGUSR1: another log file.
        assert shown_certificate(port) == before
        renewed = certificate(server, "renewed.example")
        keys = server.keys()
        server.key_file.unlink()
        os.kill(front, signal.SIGHUP)
        server.until(server.key_file.exists, "the key file to be written again")
        assert server.keys() == keys
        server.until(lambda: shown_certificate(port) == renewed, "the new certificate")
        os.kill(front, signal.SIGUSR1)
        server.until(old_log.exists, "another log file")
        assert server.predict("m").status == 200
        server.until(lambda: "keys: {" in server.log(), "a line in the new log file")
    finally:
        os.kill(front, signal.SIGTERM)
        with suppress(AssertionError):
            server.until(lambda: not server.alive(front), "the server to end")
        if server.alive(front):
            os.kill(front, signal.SIGKILL)
    assert not pid_file.exists()
    assert key not in old_log.read_text()
    assert "Server Shut Down." in server.log()
    server.assert_clean()


@pytest.mark.parametrize("command", [[TWISTD, "--nodaemon", "--pidfile="], [TWIST, "--log-format=text"]])
def test_foreground(make_server: MakeServer, command: list[str]) -> None:
    """A server in the foreground of ``twistd`` or ``twist`` answers, and ends in order when it is told to."""
    server = make_server({"echo": ECHO})
    server.start(command=[*command, "--reactor=epoll", *service(server, "--models", "echo=echo")])
    assert server.predict("echo", b"hello").body == b"hello"
    assert server.curl("inference", "/ping").status == 400
    assert "[W-9000-echo_1.0-stdout MODEL_LOG#info] Torch worker started." in server.log()
    [worker] = server.workers()
    keys = server.keys()
    server.key_file.unlink()
    assert server.front is not None
    server.front.send_signal(signal.SIGHUP)
    server.until(server.key_file.exists, "the key file to be written again")
    assert server.keys() == keys
    # When all is over, they end as Twisted's own programs do: by the signal that they were sent.
    assert server.stop() == -signal.SIGTERM
    assert "Torchserve stopped." in server.log()
    assert not server.alive(worker)
    server.assert_clean()


def test_wrong(make_server: MakeServer) -> None:
    """What cannot be used is said in one line, and nothing starts."""
    server = make_server(startup_models_required=True)
    refused = run(server, TWISTD, "--nodaemon", "--pidfile=", *service(server, "--foreground"))
    said = "twistd twisted-serve: unrecognized arguments: --foreground (twistd has --nodaemon for it)\n"
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", said)
    # This is known only after the start.
    failed = run(server, TWISTD, "--nodaemon", "--pidfile=the.pid", *service(server, "--models", "greet=gret.mar"))
    assert failed.returncode == 1
    assert "1 of 1 start-up models failed: greet (gret.mar): Model not found" in failed.stdout
    assert not (server.cwd / "the.pid").exists()
    server.assert_clean()


def interpreter_of(user: str) -> list[str] | None:
    """Return the words that run Python with our packages as a user, or None if there is no such Python."""
    packages = [str(Path(__file__).parents[2]), *site.getsitepackages()]
    program = "import msgspec, psutil, twisted_serve.cli"
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        words = ["env", f"PYTHONPATH={os.pathsep.join(packages)}", python]
        try:
            group = pwd.getpwnam(user).pw_gid
            done = subprocess.run([*words, "-c", program], user=user, group=group, capture_output=True, check=False)
        except (OSError, LookupError):
            continue
        if done.returncode == 0:
            return words
    return None


def free_privileged_port() -> socket.socket:
    """Open a port that only root can open."""
    for port in range(1023, 600, -1):
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    pytest.skip("no port below 1024 is free")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_user(make_server: MakeServer) -> None:
    """``--uid`` gives up being root before there are keys and workers, and not before ports below 1024 are open."""
    words = interpreter_of("nobody")
    if words is None:
        pytest.skip("another user cannot run this interpreter")
    with free_privileged_port() as probe:
        port = probe.getsockname()[1]
    server = make_server(management_address=f"http://127.0.0.1:{port}")
    account = pwd.getpwnam("nobody")
    for place in (server.cwd, server.temp):
        os.chown(place, account.pw_uid, account.pw_gid)
    for parent in server.cwd.parents:
        if parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o001)
    server.add_model("m", INDISCREET.replace("KEY_FILE", str(server.key_file)))
    # Plug-ins may be that user's, too: root does not run them.
    distribute(server.cwd / "plugins", "whose", SOURCE.format(segment="whose") + WHOSE)
    with (server.cwd / "config.properties").open("a") as more:
        more.write("plugins_path=plugins\n")
    twistd = [*words, "-c", "from twisted.scripts.twistd import run; run()"]
    options = ["--nodaemon", "--pidfile=", "--uid=nobody", "--gid=1"]
    server.start(command=[*twistd, *options, *service(server, "--models", "m=m")])
    assert f"plug-in run by {account.pw_uid}, {account.pw_uid}" in server.log()
    assert server.ports["management"] == port
    assert server.curl("management", "/models", key="management").status == 200
    assert server.predict("m").body == f"[{account.pw_uid}, 1]".encode()
    status = server.key_file.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (account.pw_uid, 1, 0o600)
    status = Path(f"/proc/{server.pid}/mem").stat()
    assert status.st_uid == 0, "another process of the user could read the server's memory"
    assert server.stop() == -signal.SIGTERM
    server.assert_clean()
